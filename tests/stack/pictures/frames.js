// What Prometheus answered, as the frames that Grafana's Prometheus data source makes of it.

import { FieldType, createDataFrame } from '@grafana/data';

/** `{{label}}` filled in; `__auto` and nothing leave the name to Grafana. */
function legendOf(query, labels) {
  const legend = query.legendFormat ?? '';
  if (legend === '' || legend === '__auto') {
    return undefined;
  }
  return legend.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, name) => labels[name] ?? '');
}

function numbers(values) {
  return values.map((text) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text)));
}

/** One frame for each series. A step at which there was nothing is null, so that a gap is drawn as one. */
function seriesFrame(query, series, times) {
  const points = series.values ?? [series.value];
  const at = new Map(points.map(([unix, text]) => [unix, text]));
  const grid = times ?? points.map(([unix]) => unix);
  const { __name__: name, ...labels } = series.metric;
  const values = grid.map((unix) => (at.has(unix) ? numbers([at.get(unix)])[0] : null));
  const displayNameFromDS = legendOf(query, labels);
  return createDataFrame({
    refId: query.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: grid.map((unix) => unix * 1000), config: {} },
      { name: name ?? 'Value', type: FieldType.number, values, labels, config: displayNameFromDS ? { displayNameFromDS } : {} },
    ],
  });
}

/** One frame with a column for each label. */
function tableFrame(query, result, several) {
  const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))].sort();
  const column = (name) => result.map((series) => series.metric[name] ?? '');
  const value = several ? `Value #${query.refId}` : 'Value';
  return createDataFrame({
    refId: query.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map((series) => series.value[0] * 1000), config: {} },
      ...labels.map((name) => ({ name, type: FieldType.string, values: column(name), config: { filterable: true } })),
      { name: value, type: FieldType.number, values: numbers(result.map((series) => series.value[1])), config: {} },
    ],
  });
}

/** Frames of all queries of a panel. An answer is `{query, result, times}`. */
export function framesOf(answers) {
  const tables = answers.filter(({ query }) => query.format === 'table').length;
  return answers.flatMap(({ query, result, times }) =>
    query.format === 'table'
      ? [tableFrame(query, result, tables > 1)]
      : result.map((series) => seriesFrame(query, series, times))
  );
}
