// Panels as Grafana's plugins put them together of @grafana/ui's components. The plugins themselves are in no package.

import { useRef } from 'react';
import {
  VizOrientation,
  formattedValueToString,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  renderTextPanelMarkdown,
} from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const LAST = { calcs: ['lastNotNull'], values: false };

function displayValues({ panel, frames, fieldConfig, theme }, sparkline) {
  return getFieldDisplayValues({
    fieldConfig,
    reduceOptions: { ...LAST, ...panel.options?.reduceOptions },
    replaceVariables: (text) => text,
    theme,
    data: frames,
    sparkline,
    timeZone: 'utc',
  });
}

function Repeated({ context, width, height, sparkline, children, ...repeater }) {
  return (
    <VizRepeater
      getValues={() => displayValues(context, sparkline)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={children}
      width={width}
      height={height}
      source={context.frames}
      renderCounter={0}
      orientation={context.panel.options?.orientation ?? VizOrientation.Auto}
      {...repeater}
    />
  );
}

function Stat({ context, width, height }) {
  const { graphMode = 'area', colorMode = 'value', justifyMode = 'auto', textMode = 'auto', wideLayout = true, text } = context.panel.options ?? {};
  return (
    <Repeated context={context} width={width} height={height} sparkline={graphMode !== 'none'} itemSpacing={3} autoGrid>
      {({ value, alignmentFactors, width, height, count }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline && { ...value.sparkline, timeRange: context.timeRange }}
          {...{ colorMode, graphMode, justifyMode, textMode, text, alignmentFactors, width, height }}
          theme={context.theme}
          disableWideLayout={!wideLayout}
        />
      )}
    </Repeated>
  );
}

function Bars({ context, width, height }) {
  const { displayMode, valueMode, namePlacement, showUnfilled, minVizWidth = 8, minVizHeight = 16, maxVizHeight = 300 } = context.panel.options ?? {};
  return (
    <Repeated context={context} width={width} height={height} itemSpacing={10} {...{ minVizWidth, minVizHeight, maxVizHeight }}>
      {({ value, alignmentFactors, orientation, width, height }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          valueDisplayMode={valueMode}
          {...{ displayMode, namePlacement, showUnfilled, alignmentFactors, orientation, width, height }}
          text={context.panel.options?.text}
          itemSpacing={10}
          lcdCellWidth={12}
          theme={context.theme}
        />
      )}
    </Repeated>
  );
}

/** What is no number is drawn as a gap. */
function finite(frame) {
  const fields = frame.fields.map((field) => (field.type === 'number' ? { ...field, values: field.values.map((v) => (Number.isFinite(v) ? v : null)) } : field));
  return { ...frame, fields };
}

function Curves({ context, width, height }) {
  const legend = { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [], ...context.panel.options?.legend };
  return <TimeSeries frames={context.frames.map(finite)} timeRange={context.timeRange} timeZone="utc" legend={legend} options={{}} width={width} height={height} />;
}

function Rows({ context, width, height }) {
  const { showHeader = true, sortBy, cellHeight } = context.panel.options ?? {};
  const { fieldConfig, theme } = context;
  return (
    <TableNG
      data={context.frames[0]}
      noHeader={!showHeader}
      enableVirtualization={false}
      {...{ width, height, sortBy, cellHeight, fieldConfig, theme }}
      noValue={fieldConfig.defaults.noValue}
      timeRange={context.timeRange}
      structureRev={1}
    />
  );
}

/** A band for each series, in colours of the states that it is in. Not Grafana's: its package has no such component. */
function Bands({ context, width }) {
  const { from, to } = context.timeRange;
  const left = (time) => ((time - from.valueOf()) / (to.valueOf() - from.valueOf())) * width * 0.75;
  return context.frames.map((frame, number) => {
    const [time, field] = frame.fields;
    return (
      <div key={number} style={{ position: 'relative', height: 24, marginBottom: 4 }}>
        <div style={{ width: width * 0.24, overflow: 'hidden', whiteSpace: 'nowrap' }}>{getFieldDisplayName(field, frame, context.frames)}</div>
        {time.values.slice(1).map((end, i) =>
          field.values[i] === null ? null : (
            <div
              key={end}
              style={{
                position: 'absolute',
                top: 0,
                height: 24,
                left: width * 0.25 + left(time.values[i]),
                width: left(end) - left(time.values[i]) + 0.5,
                background: field.display(field.values[i]).color,
              }}
            />
          )
        )}
      </div>
    );
  });
}

function Words({ context }) {
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderTextPanelMarkdown(context.panel.options.content) }} />;
}

/** For what is not in Grafana's packages. */
function Undrawn({ context }) {
  const values = context.frames.length ? displayValues(context, false) : [];
  const shown = context.panel.type === 'gauge' ? values.map(({ display }) => formattedValueToString(display)).join(' · ') : '';
  return (
    <div style={{ height: '100%', display: 'grid', placeItems: 'center', opacity: 0.6, border: '1px dashed', textAlign: 'center' }}>
      <div>
        <div style={{ fontSize: 22 }}>{shown}</div>
        {context.panel.type}: not drawn here
      </div>
    </div>
  );
}

const KINDS = { stat: Stat, bargauge: Bars, timeseries: Curves, table: Rows, 'state-timeline': Bands, text: Words };

export function Body({ context, width, height }) {
  const empty = context.frames.every((frame) => frame.length === 0);
  const answers = context.panel.type !== 'text' && context.panel.type !== 'stat';
  if (empty && answers) {
    return <div style={{ height: '100%', display: 'grid', placeItems: 'center', opacity: 0.7 }}>{context.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  }
  const Kind = KINDS[context.panel.type] ?? Undrawn;
  return <Kind context={context} width={width} height={height} />;
}
