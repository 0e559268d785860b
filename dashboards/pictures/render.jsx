// Draws a dashboard with Grafana's own components, from answers of Prometheus.
// Plug-ins of panels are in no registry: a type of panel is mapped to the
// component that its plug-in draws with. Heatmaps have none, and are drawn here.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import {
  applyFieldOverrides, createTheme, dateTime, EventBusSrv, FieldConfigOptionsRegistry, FieldType,
  getDisplayProcessor, getFieldDisplayName, getFieldDisplayValues, getValueFormat,
  formattedValueToString, identityOverrideProcessor, standardEditorsRegistry,
  standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry,
  ThemeContext, toDataFrame, transformDataFrame, escapeRegex,
} from '@grafana/data';
import 'uplot/dist/uPlot.min.css';
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { BarGauge, BigValue, PanelChrome, PanelContextProvider, Table, TimeSeries } from '@grafana/ui';
import { escapeRegex as ours } from './interpolate.mjs';

const COLUMN = 50, ROW = 30, GAP = 8, WIDTH = 24 * COLUMN;
const theme = createTheme({ colors: { mode: 'light' } });
const { model, answers, bottom } = window.INPUT;
const problems = [];

// What the checks fill variables in with is what Grafana does.
for (const value of ['a', '"\'}{[]()\n\\^$*+?.|/é', 'a-b c']) {
  if (escapeRegex(value) !== ours(value)) problems.push(`escapeRegex differs for ${value}`);
}

const property = (id, custom) => ({
  id: custom ? `custom.${id}` : id, path: id, name: id, isCustom: custom,
  override: () => null, editor: () => null, process: identityOverrideProcessor,
  shouldApply: () => true, settings: {},
});
const STANDARD = ['unit', 'decimals', 'min', 'max', 'color', 'thresholds', 'mappings', 'noValue', 'displayName', 'links'];
const CUSTOM = [
  'axisPlacement', 'axisGridShow', 'barAlignment', 'drawStyle', 'fillOpacity', 'gradientMode', 'lineInterpolation',
  'lineWidth', 'pointSize', 'scaleDistribution', 'showPoints', 'spanNulls', 'stacking', 'cellOptions', 'align',
  'axisBorderShow', 'minWidth', 'width', 'hideFrom', 'thresholdsStyle', 'inspect',
];
standardEditorsRegistry.setInit(() => []);
standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((id) => property(id, false)));
standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((one) => ({ id: one.id, name: one.name, transformation: one, editor: () => null })));
const registry = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((id) => property(id, false)), ...CUSTOM.map((id) => property(id, true)),
]);

/** What the plug-in of lines fills in where the dashboard says nothing. */
const LINES = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none',
  pointSize: 5, showPoints: 'auto', axisPlacement: 'auto', axisGridShow: true, barAlignment: 0,
  scaleDistribution: { type: 'linear' }, spanNulls: false, hideFrom: { tooltip: false, viz: false, legend: false },
  stacking: { mode: 'none', group: 'A' }, thresholdsStyle: { mode: 'off' },
};

const named = (legend, labels) => legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');

/** Frames of one answer, as Grafana's data source makes them. */
function frames(target, answer) {
  const { result } = answer.data;
  if (target.format === 'table') {
    const names = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].filter((n) => n !== '__name__');
    return [toDataFrame({ refId: target.refId, fields: [
      { name: 'Time', type: FieldType.time, values: result.map((one) => one.value[0] * 1000) },
      ...names.map((name) => ({ name, type: FieldType.string, values: result.map((one) => one.metric[name] ?? '') })),
      { name: `Value #${target.refId}`, type: FieldType.number, values: result.map((one) => Number(one.value[1])) },
    ] })];
  }
  // An instant is a range of one point.
  const points = (one) => one.values ?? [one.value];
  return result.map((one) => toDataFrame({ refId: target.refId, fields: [
    { name: 'Time', type: FieldType.time, values: points(one).map(([time]) => time * 1000) },
    { name: 'Value', type: FieldType.number, labels: one.metric,
      values: points(one).map(([, value]) => Number(value)),
      config: target.legendFormat && target.legendFormat !== '__auto'
        ? { displayNameFromDS: named(target.legendFormat, one.metric) } : {} },
  ] }));
}

async function data(panel) {
  const all = panel.targets.flatMap((target) => {
    const answer = answers[`${panel.id}/${target.refId}`];
    return answer ? frames(target, answer) : [];
  });
  let series = all;
  for (const one of panel.transformations ?? []) {
    if (series.length === 0) break;
    // With one query its value has no letter.
    if (panel.targets.length === 1) {
      for (const frame of series) for (const f of frame.fields) if (f.name === 'Value #A') f.name = 'Value';
    }
    series = await firstValueFrom(transformDataFrame([one], series));
  }
  const config = structuredClone(panel.fieldConfig ?? { defaults: {}, overrides: [] });
  if (panel.type === 'timeseries') config.defaults.custom = { ...LINES, ...config.defaults.custom };
  config.defaults.color ??= { mode: panel.type === 'timeseries' ? 'palette-classic' : 'thresholds' };
  config.defaults.thresholds ??= { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }] };
  for (const step of config.defaults.thresholds.steps) step.value ??= -Infinity;
  return applyFieldOverrides({
    data: series, fieldConfig: config, fieldConfigRegistry: registry, theme,
    replaceVariables: (text) => text, timeZone: 'utc',
  });
}

function range(series) {
  const times = series.flatMap((frame) => frame.fields.filter((f) => f.type === FieldType.time).flatMap((f) => f.values));
  // A little more to the right, so that no time is cut where it ends.
  const first = Math.min(...times), last = Math.max(...times);
  const from = dateTime(first), to = dateTime(last + (last - first) / 12);
  return { from, to, raw: { from, to } };
}

function Stat({ panel, series, width, height }) {
  const [one] = getFieldDisplayValues({
    data: series, fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (t) => t, theme,
    reduceOptions: panel.options.reduceOptions, sparkline: true, timeZone: 'utc',
  });
  return <BigValue width={width} height={height} theme={theme} value={{ ...one.display, title: '' }}
    sparkline={one.sparkline} colorMode={panel.options.colorMode} graphMode={panel.options.graphMode}
    justifyMode="auto" textMode="auto" />;
}

function Bars({ panel, series, width, height }) {
  const all = getFieldDisplayValues({
    data: series, fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (t) => t, theme,
    reduceOptions: panel.options.reduceOptions, timeZone: 'utc',
  });
  const each = Math.min(40, Math.floor(height / all.length) - 2);
  return all.map((one, at) => <BarGauge key={at} theme={theme} width={width} height={each} value={one.display}
    field={one.field} display={one.view?.getFieldDisplayProcessor(one.colIndex)} orientation="horizontal"
    displayMode={panel.options.displayMode} showUnfilled isOverflow={false} itemSpacing={2} />);
}

/** Cells by time and bucket, in the colours of the scale. */
function Heat({ panel, width, height }) {
  const ref = React.useRef(null);
  React.useEffect(() => {
    const { result } = answers[`${panel.id}/A`].data;
    const cells = [];
    for (const one of result) {
      for (const [time, histogram] of one.histograms ?? []) {
        for (const [, low, high, count] of histogram.buckets ?? []) cells.push([time, Number(low), Number(high), Number(count)]);
      }
    }
    const full = cells.filter(([, low, , count]) => count > 0 && low > 0);
    if (full.length === 0) return void problems.push(`${panel.title}: no cells`);
    const times = [...new Set(full.map(([time]) => time))].sort((a, b) => a - b);
    const low = Math.log2(Math.min(...full.map((c) => c[1]))), high = Math.log2(Math.max(...full.map((c) => c[2])));
    const most = Math.max(...full.map((c) => c[3]));
    const canvas = ref.current, ctx = canvas.getContext('2d');
    const left = 62, below = 22, step = times.length > 1 ? Math.min(...times.slice(1).map((t, i) => t - times[i])) : 1;
    const columns = (times.at(-1) - times[0]) / step + 1;
    const x = (time) => left + ((time - times[0]) / step) * ((width - left) / columns);
    const y = (log) => (height - below) * (1 - (log - low) / (high - low));
    for (const [time, a, b, count] of full) {
      const heat = Math.sqrt(count / most);
      ctx.fillStyle = `rgb(${255 - 40 * heat}, ${240 - 170 * heat}, ${225 - 220 * heat})`;
      const top = y(Math.log2(b));
      ctx.fillRect(x(time), top, (width - left) / columns - 1, Math.max(1, y(Math.log2(a)) - top - 1));
    }
    ctx.fillStyle = theme.colors.text.primary;
    ctx.font = '12px Inter, sans-serif';
    const format = getValueFormat('s');
    for (let line = 0; line <= 4; line++) {
      const log = low + ((high - low) * line) / 4;
      ctx.fillText(formattedValueToString(format(2 ** log, 2)), 2, Math.max(10, Math.min(height - below - 2, y(log) + 4)));
    }
    for (const time of [times[0], times[Math.floor(times.length / 2)]]) {
      ctx.fillText(dateTime(time * 1000).utc().format('HH:mm:ss'), x(time), height - 6);
    }
  });
  return <canvas ref={ref} width={width} height={height} />;
}

function Inside({ panel, series, width, height }) {
  if (panel.type === 'logs') return <div style={{ padding: 8 }}>Lines come from Loki, which is not here.</div>;
  const answered = panel.targets.some((t) => answers[`${panel.id}/${t.refId}`]?.data.result.length > 0);
  if (!answered) return <div style={{ padding: 8 }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  const size = { panel, series, width, height };
  switch (panel.type) {
    case 'stat': return <Stat {...size} />;
    case 'bargauge': return <Bars {...size} />;
    case 'heatmap': return <Heat {...size} />;
    case 'table': return <Table data={series[0]} width={width} height={height} initialSortBy={panel.options.sortBy}
      timeRange={{ from: dateTime(0), to: dateTime(0), raw: { from: '', to: '' } }} />;
    default: return <TimeSeries frames={series} width={width} height={height} timeZone="utc" timeRange={range(series)}
      legend={{ ...panel.options.legend }} options={{}} />;
  }
}

async function main() {
  // Texts are measured before they are drawn.
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`)));
  const drawn = [];
  const panels = model.panels.filter((one) => one.gridPos.y < bottom);
  for (const panel of panels) {
    const { x, y, w, h } = panel.gridPos;
    const style = { position: 'absolute', left: x * COLUMN + GAP / 2, top: y * (ROW + GAP), width: w * COLUMN - GAP };
    if (panel.type === 'row') {
      drawn.push(<h5 key={panel.id} style={{ ...style, paddingTop: 6 }}>{panel.title}</h5>);
      continue;
    }
    const series = panel.type === 'logs' || panel.type === 'heatmap' ? [] : await data(panel);
    drawn.push(<div key={panel.id} style={style}>
      <PanelChrome title={panel.title} description={panel.description} width={w * COLUMN - GAP} height={h * (ROW + GAP) - GAP}>
        {(width, height) => <Inside panel={panel} series={series} width={width} height={height} />}
      </PanelChrome>
    </div>);
  }
  const context = { eventsScope: 'global', eventBus: new EventBusSrv(), sync: () => 0 };
  document.body.style.cssText = `margin:0;background:${theme.colors.background.canvas};color:${theme.colors.text.primary};font:14px Inter,Helvetica,Arial,sans-serif;width:${WIDTH}px`;
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}><PanelContextProvider value={context}>{drawn}</PanelContextProvider></ThemeContext.Provider>);
  setTimeout(() => { document.title = problems.length > 0 ? problems.join('; ') : 'drawn'; }, 1500);
}
window.onerror = (message, file, line, column, error) => { problems.push(error?.stack ?? message); };
main().catch((error) => { document.title = `failed: ${error.stack}`; });
