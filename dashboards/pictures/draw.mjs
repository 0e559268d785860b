// Pictures of dashboards: node draw.mjs DASHBOARDS ANSWERS PICTURES
//
// Chromium draws a page for each, with Grafana's own components.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';

const [dashboards, answersFile, pictures] = process.argv.slice(2);
const answers = JSON.parse(readFileSync(answersFile));
const ROW = 38, WIDTH = 1200;
/** The first rows of panels: what a person sees without much scrolling. */
const DEEPEST = 32;

const page = mkdtempSync(join(tmpdir(), 'kldtrace-pictures-'));
try {
  await build({
    entryPoints: ['render.jsx'], bundle: true, outfile: join(page, 'render.js'), jsx: 'automatic',
    // Their ES modules would take a CommonJS module as its own default.
    alias: {
      '@grafana/data': './node_modules/@grafana/data/dist/cjs/index.cjs',
      '@grafana/ui': './node_modules/@grafana/ui/dist/cjs/index.cjs',
    },
    define: { 'process.env.NODE_ENV': '"production"', global: 'window' }, logLevel: 'error', minify: true,
    loader: { '.svg': 'dataurl', '.woff': 'dataurl', '.ttf': 'dataurl', '.woff2': 'dataurl' },
  });
  // Inside the page, as an error in another file has no words.
  const code = readFileSync(join(page, 'render.js'), 'utf8').replaceAll('</script', '<\\/script');
  for (const name of readdirSync(dashboards).filter((one) => one.endsWith('.json'))) {
    const model = JSON.parse(readFileSync(join(dashboards, name)));
    const ends = model.panels.map((one) => one.gridPos.y + one.gridPos.h).filter((end) => end <= DEEPEST);
    const bottom = Math.max(...ends);
    const own = Object.entries(answers).filter(([place]) => place.startsWith(`${name}/`));
    const input = { model, bottom, answers: Object.fromEntries(own.map(([place, one]) => [place.slice(name.length + 1), one])) };
    if (own.length === 0) continue;
    const script = JSON.stringify(input).replaceAll('<', '\\u003c');
    writeFileSync(join(page, 'page.html'),
      `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="render.css"><style>*{box-sizing:border-box}body{position:relative}</style><div id="root"></div><script>window.INPUT=${script}</script><script>${code}</script>`);
    const picture = join(pictures, name.replace('kldtrace-', 'dashboard-').replace('.json', '.png'));
    const common = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--hide-scrollbars', `--user-data-dir=${join(page, 'profile')}`,
      '--virtual-time-budget=8000', `--window-size=${WIDTH},${bottom * ROW}`];
    const url = `file://${join(page, 'page.html')}`;
    const dom = execFileSync('chromium', [...common, '--dump-dom', url], { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 28, timeout: 120000 }).toString();
    const [, title] = /<title>(.*?)<\/title>/s.exec(dom) ?? [];
    if (title !== 'drawn') throw new Error(`${name}: ${title}`);
    execFileSync('chromium', [...common, `--screenshot=${picture}`, url], { stdio: 'ignore', timeout: 120000 });
    console.log(picture);
  }
} finally {
  rmSync(page, { recursive: true, force: true });
}
