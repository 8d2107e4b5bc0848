// A dashboard's JSON, as Grafana's own types have it. Its `Panel` takes any type, options and targets, so here each kind of panel that we draw
// has its plugin's. What Grafana fills in by itself may be left out: the first level of options, and of a field's custom settings.

import type * as schema from '@grafana/schema';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as gauge from '@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as piechart from '@grafana/schema/dist/esm/raw/composable/piechart/panelcfg/x/PieChartPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as statetimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as statushistory from '@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as text from '@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** JSON has no enums: the strings that they stand for. */
type Json<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends object
      ? { [K in keyof T]: Json<T[K]> }
      : T;

interface Kind<Options, Custom = Record<string, never>> {
  options: Options;
  custom: Custom;
}

/** The kinds of panel that our dashboards may use: all are part of Grafana 10 to 13, and none is Angular. */
interface Kinds {
  barchart: Kind<barchart.Options, barchart.FieldConfig>;
  bargauge: Kind<bargauge.Options>;
  gauge: Kind<gauge.Options>;
  heatmap: Kind<heatmap.Options, heatmap.FieldConfig>;
  piechart: Kind<piechart.Options, piechart.FieldConfig>;
  stat: Kind<stat.Options>;
  'state-timeline': Kind<statetimeline.Options, statetimeline.FieldConfig>;
  'status-history': Kind<statushistory.Options, statushistory.FieldConfig>;
  table: Kind<table.Options, schema.TableFieldOptions>;
  text: Kind<text.Options>;
  timeseries: Kind<timeseries.Options, timeseries.FieldConfig>;
}

/** Grafana's Prometheus data source is in a package of its own that is not small; these are the fields of its PromQuery that we use. */
interface PrometheusQuery {
  refId: string;
  expr: string;
  datasource?: DataSource;
  editorMode?: 'code' | 'builder';
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  hide?: boolean;
  instant?: boolean;
  interval?: string;
  legendFormat?: string;
  range?: boolean;
}

/** Required, where Grafana's type has it optional: without one, a dashboard asks whatever the default data source is. */
type DataSource = Required<Pick<schema.DataSourceRef, 'type' | 'uid'>>;

type Field<Custom> = Omit<schema.FieldConfig, 'custom' | 'links'> & { custom?: Partial<Custom>; links?: DataLink[] };

interface DataLink {
  title: string;
  url: string;
  targetBlank?: boolean;
}

/** `{id: 'unit', value: 'watt'}` or `{id: 'custom.lineWidth', value: 2}`. */
type Property<Custom> =
  | { [K in keyof Omit<Field<Custom>, 'custom'>]-?: { id: K; value: Field<Custom>[K] } }[keyof Omit<Field<Custom>, 'custom'>]
  | { [K in keyof Custom & string]-?: { id: `custom.${K}`; value: Custom[K] } }[keyof Custom & string];

type Matcher =
  | { id: 'byName' | 'byRegexp' | 'byType' | 'byFrameRefID'; options: string }
  | { id: 'byNames'; options: { mode?: 'include' | 'exclude'; names: string[]; prefix?: string; readOnly?: boolean } };

interface FieldConfig<Custom> {
  defaults: Field<Custom>;
  overrides: Array<{ matcher: Matcher; properties: Array<Property<Custom>> }>;
}

/** Transformations by the names of @grafana/data's DataTransformerID; what each takes is not in the schema. */
interface Transformation {
  id:
    | 'calculateField' | 'concatenate' | 'convertFieldType' | 'filterByRefId' | 'filterByValue' | 'filterFieldsByName' | 'groupBy'
    | 'joinByField' | 'labelsToFields' | 'limit' | 'merge' | 'organize' | 'reduce' | 'renameByRegex' | 'rowsToFields' | 'seriesToRows'
    | 'sortBy' | 'timeSeriesTable';
  options: Record<string, unknown>;
  disabled?: boolean;
}

type PanelOf<Type extends keyof Kinds> = Omit<
  schema.Panel,
  'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations' | 'datasource' | 'links'
> & {
  type: Type;
  options?: Partial<Kinds[Type]['options']>;
  fieldConfig?: FieldConfig<Kinds[Type]['custom']>;
  targets?: PrometheusQuery[];
  transformations?: Transformation[];
  datasource?: DataSource;
  links?: Array<DataLink | schema.DashboardLink>;
};

type AnyPanel = { [Type in keyof Kinds]: PanelOf<Type> }[keyof Kinds];

type Row = Omit<schema.RowPanel, 'panels'> & { panels: AnyPanel[] };

/** How the Prometheus data source makes annotations of series. */
type Annotation = schema.AnnotationQuery<PrometheusQuery> & {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean | string;
};

interface Variable extends schema.VariableModel {
  definition?: string;
}

export type Dashboard = Json<
  Omit<schema.Dashboard, 'panels' | 'annotations' | 'templating'> & {
    panels: Array<AnyPanel | Row>;
    annotations?: { list: Annotation[] };
    templating: { list: Variable[] };
  }
>;
