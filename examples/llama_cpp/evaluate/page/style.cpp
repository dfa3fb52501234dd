#include "evaluate/page/style.hpp"

namespace evaluate {

// c0 to c7 are policies; r1 to r8 rise from little to much, and swap ends in the dark, so that much always
// stands out. A reader whose screen is narrow gets larger letters in charts, for those shrink with them.
const char* const kStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #f6f5f1; --card: #fdfdfb; --text: #16161a; --soft: #585751; --grid: #e4e2db; --axis: #a9a79e; --edge: #e0ded6;
  --k0: #2a78d6; --k1: #d95926; --k2: #158a60; --k3: #a87400; --k4: #c2478a; --k5: #5b4fc4; --k6: #0b8a9c; --k7: #c93b3b;
  --r0: #eeece6; --r1: #cde2fb; --r2: #a5caf2; --r3: #7db0ec; --r4: #5296e4; --r5: #2a78d6; --r6: #1c5cab; --r7: #124585; --r8: #0b2d5c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #111112; --card: #1a1a1b; --text: #f2f1ec; --soft: #b5b3a9; --grid: #313130; --axis: #75736b; --edge: #2e2e2d;
    --k0: #4d97ee; --k1: #ee7a48; --k2: #2fb380; --k3: #cf9a1c; --k4: #e06faa; --k5: #978cf0; --k6: #2eb1c4; --k7: #ee6b6b;
    --r0: #262626; --r1: #14305a; --r2: #184179; --r3: #1d5299; --r4: #2566b8; --r5: #3d82d8; --r6: #6aa4ea; --r7: #9cc5f5; --r8: #d3e6fc;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 20px 56px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; line-height: 1.3; margin: 40px 0 6px; }
h3 { font-size: 15px; line-height: 1.35; margin: 26px 0 6px; }
figure h3 { margin: 0 0 4px; }
p { margin: 4px 0 10px; max-width: 78ch; }
.lead, figcaption p, .small, .empty { color: var(--soft); }
.small, figcaption p { font-size: 13px; }
code, pre { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.88em; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 10px 12px; white-space: pre-wrap; margin: 8px 0 0; }
dl { display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 18px 0 14px; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 12px 16px; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 16px; }
figure { margin: 0; min-width: 0; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 14px 16px 10px; }
.charts figure:only-child { max-width: 720px; }
figure.whole { margin: 16px 0; }
figcaption { min-height: 2.6em; margin-bottom: 6px; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11.5px; fill: var(--soft); }
svg .label { fill: var(--text); paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg .note { paint-order: stroke; stroke: var(--card); stroke-width: 3px; font-size: 11px; }
svg .title { fill: var(--text); font-size: 12px; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
.grid { stroke: var(--grid); }
.axis { stroke: var(--axis); }
.mark { stroke: var(--soft); stroke-dasharray: 3 4; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.line.hollow { stroke-dasharray: 6 4; }
.marker { fill: var(--c); stroke: var(--card); stroke-width: 1.5; paint-order: stroke; }
.marker.hollow { fill: var(--card); stroke: var(--c); stroke-width: 2; paint-order: normal; }
.c0 { --c: var(--k0); } .c1 { --c: var(--k1); } .c2 { --c: var(--k2); } .c3 { --c: var(--k3); }
.c4 { --c: var(--k4); } .c5 { --c: var(--k5); } .c6 { --c: var(--k6); } .c7 { --c: var(--k7); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 10px 0 12px; }
.legend li { display: flex; align-items: center; gap: 8px; min-width: 0; }
.legend svg { width: 28px; height: 14px; flex: none; }
.ramp { gap: 4px 14px; font-size: 13px; color: var(--soft); margin-bottom: 0; }
.ramp li { gap: 6px; }
.ramp i { width: 16px; height: 12px; border-radius: 2px; flex: none; }
.f0 { fill: var(--r0); background: var(--r0); } .f1 { fill: var(--r1); background: var(--r1); } .f2 { fill: var(--r2); background: var(--r2); }
.f3 { fill: var(--r3); background: var(--r3); } .f4 { fill: var(--r4); background: var(--r4); } .f5 { fill: var(--r5); background: var(--r5); }
.f6 { fill: var(--r6); background: var(--r6); } .f7 { fill: var(--r7); background: var(--r7); } .f8 { fill: var(--r8); background: var(--r8); }
.hover { fill: transparent; }
.hover:hover { stroke: var(--text); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; margin: 10px 0 14px; }
figure .scroll { border: 0; margin: 0; }
figure .scroll svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--edge); }
tbody tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; font-size: 12.5px; vertical-align: bottom; }
.text { text-align: left; }
td.text { white-space: normal; }
td code { white-space: normal; }
.interval { display: block; width: 190px; height: 22px; }
.policy { display: flex; align-items: baseline; gap: 8px; min-width: 210px; }
.key { width: 14px; height: 14px; flex: none; position: relative; top: 2px; }
.better { color: var(--k2); font-weight: 600; }
.worse { color: var(--k1); font-weight: 600; }
details { margin: 10px 0; }
summary { cursor: pointer; padding: 4px 0; }
@media (max-width: 640px) {
  main { padding: 18px 12px 40px; }
  figure { padding: 12px 8px 6px; }
  h1 { font-size: 22px; }
  svg text, svg .title { font-size: 14px; }
  svg .note { font-size: 13px; }
  td.text { min-width: 150px; }
}
)css";

}  // namespace evaluate
