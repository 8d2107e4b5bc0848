// Units, colours, thresholds, mappings and overrides of a panel, applied to its frames as Grafana does it.

import { lastValueFrom } from 'rxjs';
import {
  Registry,
  FieldType,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  fieldMatchers,
  getValueFormatterIndex,
  identityOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';

const STANDARD = ['unit', 'decimals', 'min', 'max', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links', 'description'];

/** What the time series plugin takes where a dashboard says nothing. */
const GRAPH = {
  drawStyle: 'line',
  lineInterpolation: 'linear',
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: 'none',
  showPoints: 'auto',
  pointSize: 5,
  spanNulls: false,
  barAlignment: 0,
  barWidthFactor: 0.6,
  axisPlacement: 'auto',
  axisColorMode: 'text',
  axisBorderShow: false,
  axisCenteredZero: false,
  axisGridShow: true,
  stacking: { mode: 'none', group: 'A' },
};

/** Some stand under two names. */
const TRANSFORMERS = new Map(Object.values(standardTransformers).map((info) => [info.id, info]));

standardTransformersRegistry.setInit(() =>
  [...TRANSFORMERS.values()].map((info) => ({ id: info.id, name: info.name, transformation: async () => info, editor: () => null }))
);

function registryFor(panel, fieldConfig) {
  const custom = new Set(Object.keys(fieldConfig.defaults.custom ?? {}));
  for (const { properties } of fieldConfig.overrides) {
    properties.filter(({ id }) => id.startsWith('custom.')).forEach(({ id }) => custom.add(id.slice('custom.'.length)));
  }
  // The label of the y axis, and all that is about curves, is not for the time.
  const drawn = (field) => panel.type !== 'timeseries' || field.type === FieldType.number;
  const item = (id, path, isCustom) => ({
    id,
    path,
    name: id,
    isCustom,
    process: identityOverrideProcessor,
    shouldApply: isCustom ? drawn : () => true,
  });
  return new Registry(() => [
    ...STANDARD.map((name) => item(name, name, false)),
    ...[...custom].map((name) => item(`custom.${name}`, name, true)),
  ]);
}

/** Throws where a unit is none that Grafana knows: it would be written behind the number as it is. */
function checkUnits(panel, fieldConfig) {
  const overridden = fieldConfig.overrides.flatMap(({ properties }) => properties.filter(({ id }) => id === 'unit').map(({ value }) => value));
  for (const unit of [fieldConfig.defaults.unit, ...overridden]) {
    if (unit && !/^(suffix|prefix|time|si|count|currency|bool):/.test(unit) && !getValueFormatterIndex()[unit]) {
      throw new Error(`${panel.title}: Grafana knows no unit ${unit}`);
    }
  }
}

/** Throws where a transformation or a matcher is none that Grafana knows: it would do nothing. */
function checkNames(panel, fieldConfig) {
  for (const { id } of panel.transformations ?? []) {
    if (!TRANSFORMERS.has(id)) {
      throw new Error(`${panel.title}: Grafana knows no transformation ${id}`);
    }
  }
  for (const { matcher } of fieldConfig.overrides) {
    fieldMatchers.get(matcher.id);
  }
}

/** `{frames, fieldConfig}`, ready to be drawn. */
export async function prepared(panel, frames, theme) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const custom = panel.type === 'timeseries' ? { ...GRAPH, ...defaults.custom } : defaults.custom ?? {};
  const steps = defaults.thresholds?.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  const thresholds = steps ? { ...defaults.thresholds, steps } : undefined;
  const fieldConfig = { defaults: { ...defaults, custom, ...(thresholds ? { thresholds } : {}) }, overrides };
  checkUnits(panel, fieldConfig);
  checkNames(panel, fieldConfig);
  const replaceVariables = (text) => text;
  const data = await lastValueFrom(transformDataFrame(panel.transformations ?? [], frames, { interpolate: replaceVariables }));
  const fieldConfigRegistry = registryFor(panel, fieldConfig);
  const drawn = applyFieldOverrides({ data, fieldConfig, fieldConfigRegistry, replaceVariables, theme, timeZone: 'utc' });
  cacheFieldDisplayNames(drawn);
  return { fieldConfig, frames: drawn };
}
