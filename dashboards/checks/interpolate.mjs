// Variables in queries, filled in as Grafana does: @grafana/scenes 6,
// variables/interpolation/formatRegistry and MultiValueVariable.

/** lodash's escapeRegExp and `/`, as @grafana/data has it. */
export function escapeRegex(value) {
  return value.replace(/[\\^$*+?.()|[\]{}/]/g, '\\$&');
}

const BUILT_IN = { __rate_interval: '1m', __range: '1h', __interval: '15s', histograms: 'seconds' };

/** `chosen` has values by variable; of others, All or nothing is chosen. */
export function interpolate(text, model, chosen = {}) {
  return text.replace(/\$(?:\{(\w+)(?::(\w+))?\}|(\w+))/g, (whole, braced, format, bare) => {
    const name = braced ?? bare;
    const values = chosen[name];
    if (name in BUILT_IN) return values ?? BUILT_IN[name];
    const variable = model.templating.list.find((one) => one.name === name);
    if (!variable || format !== 'regex') return whole;
    // A custom value of All stands as it is, whatever the format.
    if (!values) return variable.includeAll ? variable.allValue : '';
    const quoted = values.map(escapeRegex);
    return quoted.length === 1 ? quoted[0] : `(${quoted.join('|')})`;
  });
}
