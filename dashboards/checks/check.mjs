// Reads dashboards as Grafana, Prometheus and Loki would:
//
//     node check.mjs FOLDER
//
// Every query is parsed, every dashboard held against Grafana's types. Before
// that, dashboards that are wrong on purpose have to be refused.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';
import { parser as logql } from '@grafana/lezer-logql';
import { parser as promql } from '@prometheus-io/lezer-promql';
import { interpolate } from './interpolate.mjs';
import { mutations } from './mutations.mjs';

const here = dirname(fileURLToPath(import.meta.url));

function validators() {
  const generator = createGenerator({
    path: join(here, 'types.ts'),
    tsconfig: join(here, 'tsconfig.json'),
    skipTypeCheck: true,
    additionalProperties: false,
    topRef: true,
  });
  const ajv = new Ajv({ allErrors: true, strict: false });
  return (name) => {
    if (!ajv.getSchema(name)) ajv.addSchema(generator.createSchema(name), name);
    return ajv.getSchema(name);
  };
}
const validator = validators();

function against(type, value, where) {
  const valid = validator(type);
  if (valid(value)) return [];
  return valid.errors.map((e) => {
    const what = e.params.additionalProperty ?? e.params.allowedValues?.join('|') ?? '';
    return `${where}${e.instancePath}: ${e.message} ${what}`;
  });
}

function parsed(parser, text, where) {
  const wrong = [];
  parser.parse(text).iterate({
    enter: (node) => {
      if (node.type.isError) wrong.push(`${where}: wrong at ${node.from}: ${text}`);
    },
  });
  return wrong;
}

/** Nothing, harm and harm beside others is chosen for every variable. A value
 * with a backtick is none that the variables offer. */
const harm = '"\'}{[]()\n\r\t\\^$*+?.|/${node:regex}$__range{{x}}%s#:é' + 'x'.repeat(4096);
const of = (values) =>
  Object.fromEntries(['node', 'plane', 'pool', 'dataset', 'unit'].map((name) => [name, values]));
const CHOICES = [{}, of([harm]), of(['a', harm])];

const TYPES = {
  bargauge: 'BargaugePanel',
  heatmap: 'HeatmapPanel',
  logs: 'LogsPanel',
  row: 'RowPanel',
  stat: 'StatPanel',
  table: 'TablePanel',
  timeseries: 'TimeseriesPanel',
};

/** All panels, those in closed rows, too. */
export function panels(model) {
  return model.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
}

/** What is wrong with a dashboard. */
export function faults(name, model) {
  const wrong = against('Dashboard', model, name);
  const ids = new Set();
  for (const panel of panels(model)) {
    const where = `${name}: ${panel.title}`;
    const type = TYPES[panel.type];
    if (!type) {
      wrong.push(`${where}: no panel of type ${panel.type}`);
      continue;
    }
    wrong.push(...against(type, panel, where));
    if (ids.has(panel.id)) wrong.push(`${where}: id ${panel.id} twice`);
    ids.add(panel.id);
    const { x, w } = panel.gridPos;
    if (x + w > 24) wrong.push(`${where}: it is cut at the right`);
    for (const target of panel.targets ?? []) {
      const parser = target.datasource?.type === 'loki' ? logql : promql;
      for (const chosen of CHOICES) {
        const text = interpolate(target.expr ?? '', model, chosen);
        wrong.push(...parsed(parser, text, `${where} ${target.refId}`));
      }
    }
  }
  const known = model.templating.list.map((one) => one.name);
  const used = JSON.stringify(model).matchAll(/\$\{([a-z]\w*)/g);
  for (const [, variable] of used) {
    if (!known.includes(variable)) wrong.push(`${name}: no variable ${variable}`);
  }
  for (const one of model.templating.list) {
    const text = one.query?.query;
    const selector = /^label_values\((.*), \w+\)$/.exec(text ?? '');
    if (one.type === 'query' && !selector) wrong.push(`${name}: variable ${one.name}: ${text}`);
    if (selector) wrong.push(...parsed(promql, interpolate(selector[1], model), `${name}: ${one.name}`));
  }
  return wrong;
}

const [folder] = process.argv.slice(2);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
const models = files.map((name) => [name, JSON.parse(readFileSync(join(folder, name)))]);
const wrong = models.flatMap(([name, model]) => faults(name, model));
const passed = mutations(models).filter(([, name, model]) => faults(name, model).length === 0);
wrong.push(...passed.map(([what]) => `a dashboard that is wrong on purpose passes: ${what}`));
const queries = models.flatMap(([, model]) => panels(model).flatMap((panel) => panel.targets ?? []));
console.log(`${files.length} dashboards, ${queries.length} queries, ${mutations(models).length} wrong on purpose`);
for (const line of wrong.slice(0, 50)) console.error(line);
if (wrong.length > 0 || files.length === 0) process.exit(1);
