// Draws window.pictured: a dashboard, its theme and time range, and what Prometheus answered to each of its panels.

import { createRoot } from 'react-dom/client';
import { ThemeContext, createTheme, dateTime } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { framesOf } from './frames.js';
import { prepared } from './fields.js';
import { Body } from './panels.jsx';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const MARGIN = 16;
const HEAD = 76;

const { dashboard, answers, theme: mode, range, variables, width } = window.pictured;
const theme = createTheme({ colors: { mode } });
const from = dateTime(range.from * 1000);
const to = dateTime(range.to * 1000);
const timeRange = { from, to, raw: { from, to } };
const column = (width - 2 * MARGIN + GAP) / COLUMNS;

function place({ x, y, w, h }) {
  return { left: MARGIN + x * column, top: HEAD + y * (CELL + GAP), width: w * column - GAP, height: h * (CELL + GAP) - GAP };
}

function Framed({ panel, context }) {
  const at = place(panel.gridPos);
  return (
    <div style={{ position: 'absolute', ...at }} data-panel={panel.title}>
      <PanelChrome title={panel.title} width={at.width} height={at.height} padding={panel.type === 'table' ? 'none' : 'md'}>
        {(inner, high) => (
          <div style={{ width: inner, height: high, overflow: 'hidden' }}>
            <Body context={context} width={inner} height={high} />
          </div>
        )}
      </PanelChrome>
    </div>
  );
}

function Row({ panel }) {
  const hidden = panel.collapsed ? ` (${panel.panels.length} panels)` : '';
  return <div style={{ position: 'absolute', ...place(panel.gridPos), fontSize: 16, fontWeight: 500 }}>{`${panel.collapsed ? '›' : '⌄'} ${panel.title}${hidden}`}</div>;
}

function Head() {
  const pill = { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: '2px 8px', marginRight: 8 };
  return (
    <div style={{ position: 'absolute', left: MARGIN, top: 12, right: MARGIN }}>
      <div style={{ fontSize: 18, fontWeight: 500, marginBottom: 8 }}>{dashboard.title}</div>
      {Object.entries(variables).map(([name, value]) => (
        <span key={name} style={pill}>
          <span style={{ color: theme.colors.text.secondary }}>{name}</span> {value}
        </span>
      ))}
    </div>
  );
}

function Page({ contexts }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Head />
        {dashboard.panels.map((panel) =>
          panel.type === 'row' ? <Row key={panel.id} panel={panel} /> : <Framed key={panel.id} panel={panel} context={contexts[panel.id]} />
        )}
    </ThemeContext.Provider>
  );
}

async function contextOf(panel) {
  return [panel.id, { panel, theme, timeRange, ...(await prepared(panel, framesOf(answers[panel.id] ?? []), theme)) }];
}

async function draw() {
  document.body.style.background = theme.colors.background.canvas;
  const drawn = dashboard.panels.filter(({ type }) => type !== 'row');
  const contexts = Object.fromEntries(await Promise.all(drawn.map(contextOf)));
  createRoot(document.getElementById('page')).render(<Page contexts={contexts} />);
}

draw().catch((error) => console.error(error));
