// What the pages do beyond HTML: draw charts from their tables, sort tables, change the theme, and refresh what has changed.
'use strict';

const root = document.documentElement;
const probe = document.body.appendChild(Object.assign(document.createElement('span'), { className: 'hidden' }));
const color = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };

// Charts. A chart has no data of its own: it shows the table below it.
const written = {
  usd: (v) => '$' + (v !== 0 && Math.abs(v) < 0.1 ? v.toLocaleString('en-US', { maximumSignificantDigits: 2 }) : v.toLocaleString('en-US', { minimumFractionDigits: Number.isInteger(v) ? 0 : 2, maximumFractionDigits: 2 })),
  percent: (v) => `${+v.toFixed(1)} %`,
  ms: (v) => (v < 1000 ? `${Math.round(v)} ms` : `${(v / 1000).toFixed(1)} s`),
  other: (v) => (Math.abs(v) >= 1e9 ? `${+(v / 1e9).toFixed(1)} G` : Math.abs(v) >= 1e6 ? `${+(v / 1e6).toFixed(1)} M` : Math.abs(v) >= 1e4 ? `${+(v / 1e3).toFixed(1)} k` : v.toLocaleString('en-US')),
};
const write = (unit, value) => (written[unit] || written.other)(value);

function rowsOf(table) {
  const heads = [...table.tHead.rows[0].cells];
  return {
    heads: Object.fromEntries(heads.map((head) => [head.dataset.name, { label: head.textContent, unit: head.dataset.unit }])),
    rows: [...table.tBodies[0].rows].map((row) => ({
      ...Object.fromEntries([...row.cells].map((cell, i) => [heads[i].dataset.name, { value: cell.dataset.v, text: cell.textContent }])),
      others_: row.classList.contains('others'),
    })),
  };
}

// The labels of axes lie within the chart.
const whole = { left: 2, right: 12, top: 10, bottom: 2, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' };
// A day as the range says it: 3 Nov.
const short = (text) => text.replace(/^\d{4}-\d\d-\d\d$/, (day) => new Date(day).toLocaleDateString('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' }));

const distinct = (values) => [...new Set(values)];

function seriesOf(box, data) {
  const { x, series } = box.dataset;
  const names = box.dataset.y.split(' ');
  const keys = distinct(data.rows.map((row) => row[x].text));
  if (!series) {
    return { keys, others: data.rows.map((row) => row.others_), lines: names.map((y) => ({ name: data.heads[y].label, unit: data.heads[y].unit, faint: y === box.dataset.ahead, values: data.rows.map((row) => (row[y].value === '' ? null : +row[y].value)) })) };
  }
  const y = names[0];
  const lines = distinct(data.rows.map((row) => row[series].text)).map((name) => {
    const of = data.rows.filter((row) => row[series].text === name);
    const found = new Map(of.map((row) => [row[x].text, +row[y].value]));
    return { name, unit: data.heads[y].unit, faint: of[0].others_, values: keys.map((key) => found.get(key) ?? (box.dataset.chart === 'lines' ? null : 0)) };
  });
  // The largest first, what is no single thing last; the axis of a heatmap has an order of its own.
  const sum = (one) => (one.faint ? -1 : one.values.reduce((all, value) => all + value, 0));
  return { keys, lines: box.dataset.chart === 'heatmap' ? lines : lines.sort((a, b) => sum(b) - sum(a)) };
}

function options(box, data) {
  const palette = [1, 2, 3, 4, 5, 6, 7].map((n) => color(`c${n}`));
  // Labels are measured before they are drawn, for which the font must be named.
  const text = { color: color('soft'), fontFamily: getComputedStyle(box).fontFamily, fontSize: 12 };
  const line = { lineStyle: { color: color('line') } };
  const { keys, lines, others } = seriesOf(box, data);
  const unit = lines[0]?.unit;
  const kind = box.dataset.chart;
  const flat = box.dataset.horizontal !== undefined;
  const base = {
    color: (box.dataset.chart === 'doughnut' ? others : lines.map((one) => one.faint)).map((faint, i) => (faint ? color(box.dataset.ahead ? 'ahead' : 'c8') : palette[i] || color('c8'))),
    animation: false,
    textStyle: text,
    tooltip: {
      trigger: kind === 'doughnut' || kind === 'heatmap' ? 'item' : 'axis',
      renderMode: 'richText',
      backgroundColor: color('raised'),
      borderColor: color('line'),
      textStyle: { ...text, color: color('text') },
      valueFormatter: (value) => (value == null ? '–' : write(unit, value)),
      confine: true,
    },
  };
  if (kind === 'doughnut') {
    const whole_ = lines[0].values.reduce((sum, one) => sum + (one || 0), 0);
    const share = (value) => (whole_ && value ? `${value / whole_ < 0.01 ? '< 1' : Math.round((value / whole_) * 100)} %` : '');
    const total = { show: true, position: 'center', formatter: write(unit, whole_), color: color('text'), fontFamily: text.fontFamily, fontSize: write(unit, whole_).length > 8 ? 13 : 18, fontWeight: 650 };
    return {
      ...base,
      series: [{ type: 'pie', radius: ['55%', '85%'], itemStyle: { borderColor: color('card'), borderWidth: 2 }, label: { show: false }, data: keys.map((name, i) => ({ name, value: lines[0].values[i], ...(i === 0 && { label: total }) })) }],
      legend_: keys.map((name, i) => [name, data.rows[i][box.dataset.y].text, share(lines[0].values[i])]),
    };
  }
  if (kind === 'heatmap') {
    const greatest = Math.max(...lines.flatMap((one) => one.values), 1);
    return {
      ...base,
      tooltip: { ...base.tooltip, formatter: (p) => `${lines[p.value[1]].name} ${keys[p.value[0]]}: ${write(unit, p.value[2])}` },
      grid: { ...whole, right: 4, top: 4 },
      xAxis: { type: 'category', data: keys, axisLabel: text, axisLine: line, axisTick: { show: false } },
      yAxis: { type: 'category', data: lines.map((one) => one.name), inverse: true, axisLabel: text, axisLine: line, axisTick: { show: false } },
      visualMap: { show: false, min: 0, max: greatest, inRange: { color: [color('accent-soft'), color('c1')] } },
      series: [{ type: 'heatmap', itemStyle: { borderColor: color('card'), borderWidth: 2, borderRadius: 3 }, data: lines.flatMap((one, row) => one.values.map((value, column) => [column, row, value])) }],
    };
  }
  const category = { type: 'category', data: keys, axisLabel: { ...text, hideOverlap: true, formatter: short, ...(kind !== 'bars' && { alignMinLabel: 'left', alignMaxLabel: 'right' }), ...(flat && { overflow: 'truncate', width: 150, interval: 0 }) }, axisLine: line, axisTick: { show: false }, inverse: flat, boundaryGap: kind === 'bars' };
  // Bars that lie have their figures at their ends, and room for them.
  const room = flat ? 14 + 7 * Math.max(...data.rows.map((row) => row[box.dataset.y].text.length)) : whole.right;
  const value = { type: 'value', show: !flat, axisLabel: { ...text, hideOverlap: true, formatter: (v) => write(unit, v) }, splitLine: line, splitNumber: 4, minInterval: unit === 'calls' || unit === 'tokens' ? 1 : 0 };
  const ends = { show: flat, position: 'right', color: color('text'), fontFamily: text.fontFamily, formatter: (at) => data.rows[at.dataIndex][box.dataset.y].text };
  return {
    ...base,
    grid: { ...whole, right: room },
    xAxis: flat ? value : category,
    yAxis: flat ? category : value,
    series: lines.map((one) => ({
      name: one.name,
      type: kind === 'bars' ? 'bar' : 'line',
      data: one.values,
      stack: box.dataset.stacked !== undefined ? 'all' : undefined,
      barMaxWidth: 28,
      label: ends,
      itemStyle: kind === 'bars' && box.dataset.stacked === undefined ? { borderRadius: flat ? [0, 3, 3, 0] : [3, 3, 0, 0] } : undefined,
      areaStyle: kind === 'area' ? { opacity: 0.16 } : undefined,
      showSymbol: keys.length < 3,
      lineStyle: { width: 2 },
    })),
    legend_: lines.length > 1 ? lines.map((one) => [one.name]) : [],
  };
}

function legend(box, names, colors) {
  box.parentElement.querySelector('.legend')?.remove();
  if (!names?.length) return;
  const list = document.createElement('ul');
  list.className = 'legend';
  list.setAttribute('aria-hidden', 'true');
  names.forEach(([name, value, share], i) => {
    const item = list.appendChild(document.createElement('li'));
    const mark = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const dot = mark.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'rect'));
    for (const [key, v] of Object.entries({ width: '100%', height: '100%', rx: 3, fill: colors[i % colors.length] })) dot.setAttribute(key, v);
    item.append(mark, ...[['span', 'name', name], ['b', '', value], ['span', 'share', share]].filter(([, , said]) => said !== undefined).map(([tag, className, said]) => Object.assign(document.createElement(tag), { className, textContent: said })));
  });
  box.before(list);
}

const drawn = new Map();

function draw(box) {
  const part = box.closest('.part');
  const { legend_: names, ...wanted } = options(box, rowsOf(part.querySelector('table')));
  if (!part.classList.contains('drawn')) {
    part.classList.add('drawn');
    part.querySelector('.as-table').open = false;
  }
  let chart = drawn.get(box);
  if (!chart) {
    chart = charts.init(box, null, { renderer: 'svg' });
    drawn.set(box, chart);
  }
  chart.setOption(wanted, true);
  legend(box, names, wanted.color);
}

const drawAll = () => document.querySelectorAll('[data-chart]').forEach(draw);

// Paper is light, and of another width.
let before;
addEventListener('beforeprint', () => {
  before = root.dataset.theme;
  root.dataset.theme = 'light';
  drawAll();
  for (const drawing of document.querySelectorAll('.chart svg')) drawing.setAttribute('viewBox', `0 0 ${drawing.clientWidth} ${drawing.clientHeight}`);
});
addEventListener('afterprint', () => {
  if (before) root.dataset.theme = before; else delete root.dataset.theme;
  for (const drawing of document.querySelectorAll('.chart svg')) drawing.removeAttribute('viewBox');
  drawAll();
});
new ResizeObserver(() => drawn.forEach((chart) => chart.resize())).observe(document.querySelector('main') || document.body);

// Tables are sorted by their headings: numbers by what they are, not as they are written.
function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') === 'descending' || (head.getAttribute('aria-sort') !== 'ascending' && !head.classList.contains('n'));
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const number = head.classList.contains('n');
      const key = (row) => { const v = row.cells[place].dataset.v; return v === '' ? null : number ? +v : row.cells[place].textContent; };
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => (a === null ? 1 : b === null ? -1 : (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function prepare() {
  document.querySelectorAll('table[data-sortable]').forEach(sortable);
  drawAll();
}

// The theme, by hand; without JavaScript the button is a form.
const system = matchMedia('(prefers-color-scheme: dark)');
const themeButton = document.querySelector('[data-theme-button]');
const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
function offerTheme() { if (themeButton) themeButton.textContent = isDark() ? 'Light' : 'Dark'; }
offerTheme();
themeButton?.addEventListener('click', (event) => {
  event.preventDefault();
  root.dataset.theme = isDark() ? 'light' : 'dark';
  fetch(themeButton.form.action, { method: 'POST', body: new URLSearchParams({ theme: root.dataset.theme, quiet: '1' }) });
  offerTheme();
  drawAll();
});
system.addEventListener('change', () => { offerTheme(); drawAll(); });

// On narrow screens the list of pages is closed until it is asked for.
const pages = document.querySelector('[data-nav]');
if (pages) {
  if (matchMedia('(max-width: 60rem)').matches) pages.open = false;
  pages.dataset.ready = '';
}

// Every minute, what has changed takes the place of what was there; scroll, focus and open details stay as they are.
let tag = null;
async function refresh() {
  if (document.hidden || document.activeElement?.matches('input, select, textarea')) return;
  const live = document.querySelector('[data-live]');
  const fresh = document.querySelector('[data-fresh]');
  try {
    const answer = await fetch(location.href, { headers: { Accept: 'text/html', ...(tag && { 'If-None-Match': tag }) } });
    if (answer.status === 304) return;
    if (answer.redirected || answer.status === 401) { fresh.textContent = 'You are signed out. Load the page again to sign in.'; return; }
    if (!answer.ok) throw new Error(answer.status);
    tag = answer.headers.get('ETag');
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const found = next.querySelector('[data-live]');
    for (const count of document.querySelectorAll('[data-count]')) count.replaceChildren(...(next.querySelector(`[data-count="${count.dataset.count}"]`)?.childNodes || []));
    if (!live || !found || live.innerHTML === found.innerHTML) return;
    const open = new Map([...live.querySelectorAll('.part')].map((part) => [part.id, [...part.querySelectorAll('details')].map((d) => d.open)]));
    const sorted = new Map([...live.querySelectorAll('.part th[aria-sort]')].map((head) => [head.closest('.part').id, [head.dataset.name, head.getAttribute('aria-sort')]]));
    const focus = document.activeElement?.closest('.part') ? [document.activeElement.closest('.part').id, [...document.activeElement.closest('.part').querySelectorAll('a, button, summary, [tabindex]')].indexOf(document.activeElement)] : null;
    const tops = new Map([...live.querySelectorAll('.part .scroll')].map((box) => [box.closest('.part').id, box.scrollTop]));
    drawn.forEach((chart) => chart.dispose());
    drawn.clear();
    live.replaceChildren(...found.childNodes);
    fresh.textContent = next.querySelector('[data-fresh]').textContent;
    prepare();
    for (const [id, states] of open) document.getElementById(id)?.querySelectorAll('details').forEach((d, i) => { if (states[i] !== undefined) d.open = states[i]; });
    for (const [id, [name, way]] of sorted) {
      const button = document.getElementById(id)?.querySelector(`th[data-name="${CSS.escape(name)}"] button`);
      if (button) { button.click(); if (button.parentElement.getAttribute('aria-sort') !== way) button.click(); }
    }
    for (const [id, top] of tops) { const box = document.getElementById(id)?.querySelector('.scroll'); if (box) box.scrollTop = top; }
    if (focus) [...(document.getElementById(focus[0])?.querySelectorAll('a, button, summary, [tabindex]') || [])][focus[1]]?.focus({ preventScroll: true });
  } catch {
    fresh.textContent = 'The server does not answer; what is shown may be old.';
  }
}
prepare();
if (document.querySelector('[data-live]')) setInterval(refresh, 60_000);
document.addEventListener('vital:refresh', refresh);
