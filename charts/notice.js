// The licences of what is in the bundle, beside it: ECharts (Apache-2.0), ZRender (BSD-3-Clause), tslib (0BSD).
import { readFileSync, writeFileSync } from 'node:fs';

const read = (name) => readFileSync(new URL(`node_modules/${name}`, import.meta.url), 'utf8').trim();
const parts = ['echarts/NOTICE', 'echarts/LICENSE', 'zrender/LICENSE', 'tslib/LICENSE.txt'].map((name) => `${name.split('/')[0]}\n\n${read(name)}\n`);
const text = `charts.js is made of parts of Apache ECharts, ZRender and tslib, by the lock file in charts/.\n\n${parts.join('\n----\n\n')}`;
writeFileSync(new URL('../vital_tracking/web/static/charts.NOTICE.txt', import.meta.url), text.replaceAll('\r\n', '\n'));
