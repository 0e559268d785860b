// Dashboards that are wrong on purpose, each in one way.

const asking = (model) => model.templating.list.find((one) => one.type === 'query');

/** What is done to a panel of a type; `''`: to the dashboard. */
const WAYS = [
  ['a query that does not end', 'timeseries', (p) => (p.targets[0].expr += ' +')],
  ['a brace too few', 'stat', (p) => (p.targets[0].expr = p.targets[0].expr.replace('}', ''))],
  ['a function with no name', 'heatmap', (p) => (p.targets[0].expr = '(rate(x[5m]) by')],
  ['LogQL without an end', 'logs', (p) => (p.targets[0].expr += ' |')],
  ['PromQL for Loki', 'logs', (p) => (p.targets[0].expr = 'histogram_quantile(1, x) / y')],
  ['a query without an expression', 'table', (p) => delete p.targets[0].expr],
  ['a format that there is none of', 'heatmap', (p) => (p.targets[0].format = 'heat')],
  ['another data source', 'stat', (p) => (p.targets[0].datasource.uid = 'mine')],
  ['a unit that is a number', 'timeseries', (p) => (p.fieldConfig.defaults.unit = 7)],
  ['a width in words', 'timeseries', (p) => (p.fieldConfig.defaults.custom.lineWidth = 'thin')],
  ['an option that there is none of', 'stat', (p) => (p.options.colour = 'value')],
  ['a wrong word for an option', 'stat', (p) => (p.options.colorMode = 'loud')],
  ['a legend in a wrong place', 'timeseries', (p) => (p.options.legend.placement = 'top')],
  ['a scale that there is none of', 'heatmap', (p) => (p.options.color.scale = 'log')],
  ['a threshold without a colour', 'stat', (p) => delete p.fieldConfig.defaults.thresholds.steps[0].color],
  ['a transformation without options', 'table', (p) => delete p.transformations[0].options],
  ['a panel of no known type', 'bargauge', (p) => (p.type = 'graph')],
  ['a panel that is too wide', 'bargauge', (p) => (p.gridPos.w = 25)],
  ['an id twice', 'logs', (p, model) => (p.id = model.panels[0].id)],
  ['a variable that there is none of', 'stat', (p) => (p.targets[0].expr += ' + x{a=~`${nothing:regex}`}')],
  ['a refresh in numbers', '', (model) => (model.refresh = 30)],
  ['a key that there is none of', '', (model) => (model.rows = [])],
  ['a variable of no type', '', (model) => (model.templating.list[0].type = 'list')],
  ['a variable that does not ask', '', (model) => (asking(model).query.query = 'up')],
  ['a time without an end', '', (model) => delete model.time.to],
  ['no uid', '', (model) => delete model.uid],
];

/** What is wrong, the name of the dashboard, and the dashboard. */
export function mutations(models) {
  return WAYS.map(([what, type, change]) => {
    for (const [name, original] of models) {
      const model = structuredClone(original);
      const all = model.panels.flatMap((one) => [one, ...(one.panels ?? [])]);
      const panel = type === '' ? asking(model) && model : all.find((one) => one.type === type);
      if (!panel) continue;
      change(panel, model);
      return [what, name, model];
    }
    throw new Error(`no panel of type ${type} to make wrong`);
  });
}
