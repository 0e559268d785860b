// Dashboards as Grafana's own types have them: what the schemas are made of.
// A panel's options are those of its plug-in. Targets are not in the package:
// theirs are written down here.
import type * as core from '@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import type * as heatmap from '@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as logs from '@grafana/schema/dist/types/raw/composable/logs/panelcfg/x/types.gen';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

/** Plug-ins fill in what is left out. */
type Some<T> = T extends (infer One)[]
  ? Some<One>[]
  : T extends object
    ? { [Key in keyof T]?: Some<T[Key]> }
    : T;

interface Source<Type extends string> {
  type: Type;
  uid: `\${${Type}}`;
}

interface Prometheus {
  datasource: Source<'prometheus'>;
  editorMode: 'code';
  exemplar?: boolean;
  expr: string;
  format?: 'heatmap' | 'table';
  instant: boolean;
  legendFormat?: string;
  range: boolean;
  refId: string;
}

interface Loki {
  datasource: Source<'loki'>;
  expr: string;
  queryType: 'range';
  refId: string;
}

interface Of<Type extends string, Options, Custom, Target>
  extends Omit<core.Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Type;
  id: number;
  title: string;
  gridPos: core.GridPos;
  options?: Some<Options>;
  fieldConfig?: {
    defaults: Omit<core.FieldConfig, 'custom' | 'links'> & {
      custom?: Some<Custom>;
      links?: core.DashboardLink[];
    };
    overrides: core.FieldConfigSource['overrides'];
  };
  targets: Target[];
}

export type BargaugePanel = Of<'bargauge', bargauge.Options, never, Prometheus>;
export type HeatmapPanel = Of<'heatmap', heatmap.Options, heatmap.FieldConfig, Prometheus>;
export type LogsPanel = Of<'logs', logs.Options, never, Loki>;
export type StatPanel = Of<'stat', stat.Options, never, Prometheus>;
export type TablePanel = Of<'table', table.Options, table.FieldConfig, Prometheus>;
export type TimeseriesPanel = Of<'timeseries', timeseries.Options, timeseries.FieldConfig, Prometheus>;
export type RowPanel = Omit<core.RowPanel, 'panels'> & { panels: unknown[] };
/** Panels are looked at one by one, so that an error names the panel. */
export type Dashboard = Omit<core.Dashboard, 'panels' | 'uid' | 'title'> & {
  panels: unknown[];
  title: string;
  uid: string;
};
