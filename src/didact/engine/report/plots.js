// The plots. All numbers come from the JSON block; colours from the style sheet, so that dark mode and print work.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const metrics = new Map(data.metrics.map((m) => [m.name, m]));
  const config = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], displayModeBar: "hover" };
  const stat = (entry, name) => entry.statistics[name];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  // Plotly reads <b> and entities in its texts: a label must not.
  const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const narrow = () => document.documentElement.clientWidth < 640;

  // ---- axes ---------------------------------------------------------------------------------------------------

  /** Where values of a metric lie on an axis: log for costs (zero one decade below the rest), better to the right. */
  function axisOf(name, entries, { extra = [], grow = 0.08 } = {}) {
    const metric = metrics.get(name);
    const found = entries.map((e) => stat(e, name)).filter(Boolean);
    const means = [...found.map((s) => s.mean), ...extra];
    const positive = means.filter((v) => v > 0);
    const log = metric.log && positive.length > 0 && means.every((v) => v >= 0);
    const floor = log ? 10 ** (Math.floor(Math.log10(Math.min(...positive))) - 1) : 0;
    const place = (v) => (log ? Math.max(v, floor) : v);
    const scaled = (v) => (log ? Math.log10(place(v)) : v); // what plotly wants in ranges, shapes and annotations
    const spots = means.map(scaled);
    let [low, high] = [Math.min(...spots), Math.max(...spots)];
    const span = high - low;
    // An interval may widen the axis a little; a huge one runs off it instead of squeezing the points together.
    for (const s of found) {
      if (s.half === null) continue;
      low = Math.max(Math.min(low, scaled(s.mean - s.half)), Math.min(...spots) - 0.3 * (span || Infinity));
      high = Math.min(Math.max(high, scaled(s.mean + s.half)), Math.max(...spots) + 0.3 * (span || Infinity));
    }
    const pad = grow * (high - low) || Math.abs(high) * 0.1 || 0.5;
    [low, high] = [low - pad, high + pad];
    const layout = {
      type: log ? "log" : "linear", range: metric.sign < 0 ? [high, low] : [low, high],
      gridcolor: colour("grid"), zeroline: false, linecolor: colour("line"), tickcolor: colour("line"), ticks: "outside",
      tickfont: { color: colour("muted"), size: 12 }, ...(log ? ticks(low, high, floor, means.includes(0), metric) : {}),
    };
    return { metric, log, place, scaled, layout, low, high };
  }

  function ticks(low, high, floor, zero, metric) {
    const steps = high - low < 1.6 ? [1, 2, 5] : [1];
    const values = [];
    for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power++) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (Math.log10(value) >= low && Math.log10(value) <= high && (!zero || value > floor * 1.01)) values.push(value);
      }
    }
    const every = Math.ceil(values.length / (narrow() ? 4 : 8));
    const shown = values.filter((_, i) => i % every === 0);
    const text = shown.map((v) => short(v, metric.unit));
    return zero ? { tickvals: [floor, ...shown], ticktext: ["0", ...text] } : { tickvals: shown, ticktext: text };
  }

  function short(value, unit) {
    for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= size * 0.999) return `${+(value / size).toPrecision(3)}${unit === "s" ? " k".trim() : letter}`;
    }
    return `${+value.toPrecision(3)}`;
  }

  function axisTitle(metric, room) {
    const unit = metric.unit ? ` [${metric.unit}]` : "";
    const way = metric.sign === 0 ? "" : metric.sign > 0 ? " · higher is better →" : " · lower is better →";
    return `${safe(cut(metric.name, Math.max(8, Math.floor(room / 8) - way.length - unit.length)))}${safe(unit)}${way}`;
  }

  function base(height, margin) {
    return {
      height, margin, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", color: colour("ink"), size: 13 },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left", namelength: -1 },
      hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("line"), activecolor: colour("muted") },
    };
  }

  const tint = (entry) => (entry.baseline ? colour("base") : colour("accent"));
  const bars = (axis, stats) => ({
    type: "data", symmetric: false, thickness: 1.2, width: 0,
    array: stats.map((s) => (s.half === null ? 0 : axis.place(s.mean + s.half) - axis.place(s.mean))),
    arrayminus: stats.map((s) => (s.half === null ? 0 : axis.place(s.mean) - axis.place(s.mean - s.half))),
  });

  // ---- trade-off ----------------------------------------------------------------------------------------------

  /** `asked`: other axes were chosen, so decide anew whether far-off points would squeeze the others together. */
  function tradeOff(asked) {
    const [x, y, by] = [$("pick-x").value, $("pick-y").value, $("pick-size").value];
    const points = data.entries.filter((e) => stat(e, x) && stat(e, y));
    if (!points.length) return empty("plot-trade-off", "No method gave a value of both metrics.");
    const box = $("plot-trade-off");
    const front = frontOf(points, x, y);
    const limits = (name) => (data.constraint && data.constraint.metric === name ? bounds() : []);
    const view = (list) => [x, y].map((name) => axisOf(name, list, { extra: limits(name), grow: 0.1 }));
    const core = points.filter((e) => e.rank !== null);
    const whole = view(points), close = core.length > 1 && core.length < points.length ? view(core) : whole;
    if (asked) $("zoom").checked = close.some((axis, i) => axis.high - axis.low < 0.4 * (whole[i].high - whole[i].low));
    const [ax, ay] = $("zoom").checked ? close : whole;
    $("zoom-label").hidden = close === whole;
    const inside = (axis, name) => (e) => { const v = axis.scaled(stat(e, name).mean); return v >= axis.low && v <= axis.high; };
    const beyond = points.filter((e) => !inside(ax, x)(e) || !inside(ay, y)(e)).map((e) => e.label);
    const size = sizes(points, by, narrow() ? 0.75 : 1);

    const height = narrow() ? 440 : 560;
    const margin = { l: 62, r: 16, t: 30, b: 52 };
    const layout = base(height, margin);
    const title = (metric, room) => ({ text: axisTitle(metric, room), font: { size: 13, color: colour("ink") }, standoff: 8 });
    layout.xaxis = { ...ax.layout, title: title(ax.metric, box.clientWidth - 80) };
    layout.yaxis = { ...ay.layout, title: title(ay.metric, height - 80) };
    const marks = constraintMarks(x, y, ax, ay);
    layout.shapes = marks.shapes;
    layout.annotations = [...corner(ax.metric, ay.metric), ...marks.annotations];

    const group = (list, symbol) => ({
      type: "scatter", mode: "markers", cliponaxis: true,
      x: list.map((e) => ax.place(stat(e, x).mean)), y: list.map((e) => ay.place(stat(e, y).mean)),
      error_x: { ...bars(ax, list.map((e) => stat(e, x))), color: fade(list) }, error_y: { ...bars(ay, list.map((e) => stat(e, y))), color: fade(list) },
      marker: {
        symbol: list.map((e) => (e.meets ? symbol : `${symbol}-open`)), size: list.map(size.of), sizemode: "diameter",
        color: list.map(tint), opacity: 1, line: { width: list.map((e) => (e.meets ? 1 : 1.8)), color: list.map((e) => (e.meets ? colour("paper") : tint(e))) },
      },
      text: list.map((e) => hover(e, [x, y, by])), hovertemplate: "%{text}<extra></extra>",
    });
    const fade = (list) => (list.length && list[0].baseline ? colour("base") : colour("accent")) + "55";
    const line = [...front].sort((a, b) => stat(a, x).mean - stat(b, x).mean);
    const traces = [
      { type: "scatter", mode: "lines", x: line.map((e) => ax.place(stat(e, x).mean)), y: line.map((e) => ay.place(stat(e, y).mean)), line: { color: colour("accent"), width: 2 }, hoverinfo: "skip" },
      group(points.filter((e) => e.baseline), "square"),
      group(points.filter((e) => !e.baseline), "circle"),
    ];
    const fixed = layout.annotations;
    Plotly.react(box, traces, layout, config).then(() => {
      const label = () => labels(box, points, { x, y, ax, ay, front, size, fixed });
      label();
      if (box.removeAllListeners) box.removeAllListeners("plotly_relayout");
      box.on("plotly_relayout", (change) => { if (Object.keys(change).some((k) => /axis/.test(k))) label(); });
    });
    legend(points, front, by, size);
    const names = line.map((e) => e.label);
    const missing = data.entries.length - points.length;
    $("trade-off-note").textContent = (front.length ? `On the front, where no other method is better on both axes: ${names.join(", ")}.` : "A metric without a better direction has no front.")
      + (missing ? ` ${missing} without a value of both metrics not drawn.` : "")
      + (beyond.length ? ` Outside this view: ${beyond.slice(0, 8).join(", ")}${beyond.length > 8 ? ` and ${beyond.length - 8} more` : ""}.` : "");
  }

  function bounds() {
    return [data.constraint.at_most, data.constraint.at_least].filter((v) => v !== null);
  }

  function frontOf(points, x, y) {
    const [sx, sy] = [metrics.get(x).sign, metrics.get(y).sign];
    if (!sx || !sy) return [];
    const spot = (e) => [sx * stat(e, x).mean, sy * stat(e, y).mean];
    return points.filter((e) => {
      const [a, b] = spot(e);
      return !points.some((o) => { const [c, d] = spot(o); return c >= a && d >= b && (c > a || d > b); });
    });
  }

  /** Marker diameters whose area grows with the logarithm of a cost. */
  function sizes(points, by, zoom) {
    const found = points.map((e) => stat(e, by)).filter(Boolean).map((s) => s.mean).filter((v) => v > 0);
    if (!by || !found.length) return { of: () => 10, diameter: () => 10, marks: [] }; // all the same
    const [low, high] = [Math.log(Math.min(...found)), Math.log(Math.max(...found))];
    const diameter = (v) => zoom * (v > 0 ? Math.sqrt(64 + (420 * Math.max(0, Math.log(v) - low)) / (high - low || 1)) : 6);
    const powers = [...new Set([low, (low + high) / 2, high].map((v) => 10 ** Math.round(v / Math.LN10)))];
    return { of: (e) => (stat(e, by) ? diameter(stat(e, by).mean) : 6), diameter, marks: powers };
  }

  function corner(mx, my) {
    const sign = mx.sign && my.sign ? "↗" : mx.sign ? "→" : my.sign ? "↑" : "";
    if (!sign) return [];
    return [{ xref: "paper", yref: "paper", x: 1, y: 1, xanchor: "right", yanchor: "bottom", showarrow: false, text: `<b>better ${sign}</b>`, font: { color: colour("accent"), size: 14 } }];
  }

  /** What the constraint excludes is shaded; its bound is a dashed line with its name. */
  function constraintMarks(x, y, ax, ay) {
    const shapes = [], annotations = [], c = data.constraint;
    for (const [name, axis, vertical] of [[x, ax, true], [y, ay, false]]) {
      if (!c || c.metric !== name) continue;
      for (const [bound, far] of [[c.at_most, axis.high + 9 * (axis.high - axis.low)], [c.at_least, axis.low - 9 * (axis.high - axis.low)]]) {
        if (bound === null) continue;
        const at = axis.scaled(bound);
        const raw = (v) => (axis.log ? 10 ** v : v);
        const along = vertical ? { xref: "x", yref: "paper", y0: 0, y1: 1 } : { xref: "paper", yref: "y", x0: 0, x1: 1 };
        const across = (a, b) => (vertical ? { x0: raw(a), x1: raw(b) } : { y0: raw(a), y1: raw(b) });
        shapes.push({ type: "rect", layer: "below", ...along, ...across(at, far), fillcolor: colour("shade"), line: { width: 0 } });
        shapes.push({ type: "line", layer: "above", ...along, ...across(at, at), line: { color: colour("muted"), width: 1, dash: "dash" } });
        const where = vertical ? { xref: "x", yref: "paper", x: at, y: 0, textangle: -90, xanchor: "right", yanchor: "bottom" } : { xref: "paper", yref: "y", x: 0, y: at, xanchor: "left", yanchor: "bottom" };
        annotations.push({ ...where, name: "bound", showarrow: false, text: safe(c.text), font: { size: 11, color: colour("muted") } });
      }
    }
    return { shapes, annotations };
  }

  /** Names beside their points: each takes the free place nearest to its point, the front first; without room, none. */
  function labels(box, points, { x, y, ax, ay, front, size, fixed }) {
    const { xaxis, yaxis } = box._fullLayout;
    const [width, height] = [xaxis._length, yaxis._length];
    const pen = document.createElement("canvas").getContext("2d");
    const most = narrow() ? 16 : 28;
    const spots = points.map((e) => {
      const bold = front.includes(e) || e.label === data.best;
      const text = cut(e.label, most);
      const font = narrow() ? 11 : 12;
      pen.font = `${bold ? "bold " : ""}${font}px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif`;
      return {
        e, bold, text, font, w: pen.measureText(text).width + 4, h: font + 4, r: size.of(e) / 2,
        px: xaxis.d2p(ax.place(stat(e, x).mean)), py: yaxis.d2p(ay.place(stat(e, y).mean)),
      };
    }).filter((s) => s.px >= -1 && s.px <= width + 1 && s.py >= -1 && s.py <= height + 1);
    const dots = spots.map((s) => [s.px - s.r, s.py - s.r, s.px + s.r, s.py + s.r]);
    const rules = spots.flatMap((s) => {
      const [sx, sy] = [stat(s.e, x), stat(s.e, y)];
      const across = [xaxis.d2p(ax.place(sx.mean - sx.half)), xaxis.d2p(ax.place(sx.mean + sx.half))].sort((a, b) => a - b);
      const up = [yaxis.d2p(ay.place(sy.mean - sy.half)), yaxis.d2p(ay.place(sy.mean + sy.half))].sort((a, b) => a - b);
      return [[across[0], s.py - 1, across[1], s.py + 1], [s.px - 1, up[0], s.px + 1, up[1]]];
    });
    const path = spots.filter((s) => front.includes(s.e)).sort((a, b) => a.px - b.px);
    for (const [i, s] of path.slice(1).entries()) {
      for (let t = 0.05; t < 1; t += 0.05) {
        const [cx, cy] = [path[i].px + t * (s.px - path[i].px), path[i].py + t * (s.py - path[i].py)];
        rules.push([cx - 3, cy - 3, cx + 3, cy + 3]);
      }
    }
    const taken = fixed.filter((note) => note.name === "bound").map((note) => aside(note, dots, xaxis, yaxis, pen, width, height));
    const notes = [];
    const importance = (s) => (s.bold ? 0 : s.e.rank !== null ? s.e.rank : 1000);
    for (const s of [...spots].sort((a, b) => importance(a) - importance(b))) {
      let best = null;
      for (const gap of [3, 10, 18, 28, 40, 54]) {
        for (let i = 0; i < 16; i++) {
          const angle = (i * Math.PI) / 8;
          const [dx, dy] = [Math.cos(angle) * (s.r + gap), -Math.sin(angle) * (s.r + gap)];
          const side = Math.abs(dx) < (s.r + gap) * 0.3 ? 0 : Math.sign(dx);
          const rise = Math.abs(dy) < (s.r + gap) * 0.5 ? 0 : Math.sign(dy);
          const left = s.px + dx + (side === 0 ? -s.w / 2 : side < 0 ? -s.w : 0);
          const top = s.py + dy + (rise === 0 ? -s.h / 2 : rise < 0 ? -s.h : 0);
          const area = [left, top, left + s.w, top + s.h];
          if (left < 0 || top < 0 || left + s.w > width || top + s.h > height) continue;
          const onText = sum(taken, area);
          const onDots = sum(dots, area);
          const crossed = gap > 10 ? taken.filter((t) => cuts(s, dx, dy, t)).length : 0;
          const cost = 20 * onText + 4 * onDots + 0.15 * sum(rules, area) + 60 * crossed + gap * 1.5 + (side > 0 ? 0 : 2) + (rise === 0 ? 0 : 1);
          if (!best || cost < best.cost) best = { cost, dx, dy, side, rise, area, gap, clash: onText };
        }
      }
      if (!best || best.clash > 0.08 * s.w * s.h) continue;
      taken.push(best.area);
      notes.push({
        x: ax.scaled(stat(s.e, x).mean), y: ay.scaled(stat(s.e, y).mean), ax: best.dx, ay: best.dy, showarrow: true, arrowhead: 0, arrowwidth: 0.8,
        arrowcolor: best.gap > 10 ? colour("muted") : "rgba(0,0,0,0)", standoff: s.r, borderpad: 0,
        xanchor: ["right", "center", "left"][best.side + 1], yanchor: ["bottom", "middle", "top"][best.rise + 1],
        text: s.bold ? `<b>${safe(s.text)}</b>` : safe(s.text), font: { size: s.font, color: s.e.baseline ? colour("base") : colour("ink") },
      });
    }
    Plotly.relayout(box, { annotations: [...fixed, ...notes] });
    const left = spots.length - notes.length;
    $("unlabelled").textContent = left ? `${left} name${left > 1 ? "s" : ""} left out for lack of room: point at a marker.` : "";
  }

  /** Move the name of a bound to that end and side of its line where it hides least; returns its box. */
  function aside(note, dots, xaxis, yaxis, pen, width, height) {
    pen.font = '11px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
    const [long, thick] = [pen.measureText(data.constraint.text).width + 6, 16];
    const vertical = note.xref === "x";
    const at = vertical ? xaxis.l2p(note.x) : yaxis.l2p(note.y);
    const choices = [0, 1].flatMap((end) => [0, 1].map((side) => {
      const along = end ? (vertical ? 0 : width - long) : (vertical ? height - long : 0);
      const over = side ? at : at - thick;
      return { end, side, area: vertical ? [over, along, over + thick, along + long] : [along, over, along + long, over + thick] };
    }));
    const { end, side, area } = choices.sort((a, b) => sum(dots, a.area) - sum(dots, b.area))[0];
    if (vertical) Object.assign(note, { y: end, yanchor: end ? "top" : "bottom", xanchor: side ? "left" : "right" });
    else Object.assign(note, { x: end, xanchor: end ? "right" : "left", yanchor: side ? "top" : "bottom" });
    return area;
  }

  const sum = (boxes, [a, b, c, d]) => boxes.reduce((all, [e, f, g, h]) => all + Math.max(0, Math.min(c, g) - Math.max(a, e)) * Math.max(0, Math.min(d, h) - Math.max(b, f)), 0);
  const cuts = (s, dx, dy, [a, b, c, d]) => [0.3, 0.5, 0.7, 0.9].some((t) => s.px + t * dx > a && s.px + t * dx < c && s.py + t * dy > b && s.py + t * dy < d);

  function hover(e, names) {
    const shown = [...new Set([...names, data.primary, "seconds", "passes"])].filter((n) => n && stat(e, n));
    const kind = [e.baseline ? "baseline" : "", e.meets || !data.constraint ? "" : `not meeting ${data.constraint.text}`, e.rank === null ? "" : `rank ${e.ranked}`].filter(Boolean).join(", ");
    return [`<b>${safe(cut(e.label, 60))}</b>`, e.title === e.label ? "" : safe(cut(e.title, 70)), kind, ...shown.map((n) => `${safe(n)}: ${safe(stat(e, n).text)}`)].filter(Boolean).join("<br>");
  }

  function legend(points, front, by, size) {
    const mark = (shape, fill, stroke, d = 10) => {
      const half = Math.ceil(d / 2) + 2;
      const body = shape === "circle" ? `<circle cx="${half}" cy="${half}" r="${d / 2}"` : `<rect x="2" y="2" width="${d}" height="${d}"`;
      return `<svg width="${2 * half}" height="${2 * half}" aria-hidden="true">${body} fill="${fill}" stroke="${stroke}" stroke-width="1.5"/></svg>`;
    };
    const [accent, grey] = ["var(--accent)", "var(--base)"];
    const parts = [`<span>${mark("circle", accent, accent)}method</span>`];
    if (points.some((e) => e.baseline)) parts.push(`<span>${mark("square", grey, grey)}baseline</span>`);
    if (data.constraint && points.some((e) => !e.meets)) parts.push(`<span>${mark("circle", "none", accent)}not meeting ${safe(data.constraint.text)}</span>`);
    if (front.length > 1) parts.push(`<span><svg width="22" height="10" aria-hidden="true"><line x1="0" x2="22" y1="5" y2="5" stroke="${accent}" stroke-width="2"/></svg>front</span>`);
    if (points.some((e) => stat(e, $("pick-x").value).half !== null)) parts.push("<span>bars: 95 % intervals</span>");
    if (size.marks.length) parts.push(`<span>size, ${safe(by)}: ${size.marks.map((v) => mark("circle", "none", "var(--muted)", size.diameter(v)) + short(v, metrics.get(by).unit)).join(" ")}</span>`);
    $("trade-off-legend").innerHTML = parts.join("") + '<span id="unlabelled" role="status"></span>';
  }

  // ---- values, cost -------------------------------------------------------------------------------------------

  function rowsAxis(list, width) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = 'bold 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
    const most = narrow() ? 16 : 34;
    const fits = (text) => pen.measureText(text).width <= 0.45 * width - 16;
    const fitted = (text) => { let n = Math.min(most, text.length); while (n > 4 && !fits(cut(text, n))) n--; return cut(text, n); };
    const names = list.map((e) => fitted(e.label));
    const room = Math.max(40, ...names.map((n) => pen.measureText(n).width)) + 16;
    return {
      room, axis: {
        tickvals: list.map((_, i) => i), ticktext: names.map((n, i) => (list[i].label === data.best ? `<b>${safe(n)}</b>` : safe(n))),
        range: [list.length - 0.4, -0.6], fixedrange: true, zeroline: false, ticks: "outside", ticklen: 6, tickcolor: "rgba(0,0,0,0)", gridcolor: colour("grid"), tickfont: { color: colour("ink"), size: narrow() ? 11 : 13 },
      },
    };
  }

  function values() {
    const name = $("pick-values").value;
    const found = data.entries.filter((e) => stat(e, name));
    if (!found.length) return empty("plot-values", "No method gave a value.");
    const sign = metrics.get(name).sign || 1;
    const list = [...found].sort((a, b) => sign * (stat(b, name).mean - stat(a, name).mean));
    const box = $("plot-values");
    const limits = data.constraint && data.constraint.metric === name ? bounds() : [];
    const axis = axisOf(name, list, { extra: limits, grow: 0.05 });
    const { room, axis: rows } = rowsAxis(list, box.clientWidth);
    const layout = base(90 + 24 * list.length, { l: room, r: 14, t: 24, b: 50 });
    layout.xaxis = { ...axis.layout, title: { text: axisTitle(axis.metric, box.clientWidth - room), font: { size: 13, color: colour("ink") }, standoff: 8 } };
    layout.yaxis = rows;
    const marks = constraintMarks(name, null, axis, null);
    layout.shapes = marks.shapes;
    layout.annotations = marks.annotations.map((a) => ({ ...a, textangle: 0, y: 1, xanchor: "center" }));
    const seeds = list.flatMap((e, i) => stat(e, name).values.map((v, k) => ({ v, i, e, seed: e.seeds[k] })).filter((p) => p.v !== null));
    Plotly.react(box, [
      {
        type: "scatter", mode: "markers", x: seeds.map((p) => axis.place(p.v)), y: seeds.map((p) => p.i + 0.24), marker: { size: 4.5, color: seeds.map((p) => tint(p.e)), opacity: 0.55 },
        text: seeds.map((p) => `${safe(cut(p.e.label, 60))}<br>seed ${p.seed}: ${+p.v.toPrecision(5)}`), hovertemplate: "%{text}<extra></extra>",
      },
      ...[true, false].map((baseline) => {
        const at = list.map((e, i) => [e, i]).filter(([e]) => e.baseline === baseline);
        return {
          type: "scatter", mode: "markers", x: at.map(([e]) => axis.place(stat(e, name).mean)), y: at.map(([, i]) => i),
          error_x: { ...bars(axis, at.map(([e]) => stat(e, name))), thickness: 1.6, color: colour(baseline ? "base" : "accent") },
          marker: { size: 9, symbol: at.map(([e]) => (baseline ? "square" : "circle") + (e.meets ? "" : "-open")), color: colour(baseline ? "base" : "accent"), line: { width: at.map(([e]) => (e.meets ? 0 : 1.8)) } },
          text: at.map(([e]) => hover(e, [name])), hovertemplate: "%{text}<extra></extra>",
        };
      }),
    ], layout, config);
    $("values-note").textContent = `${axis.metric.doc === name ? "" : `${name}: ${axis.metric.doc}. `}Dot: mean. Whisker: 95 % interval. Small dots: single seeds. ${axis.metric.sign ? "Best on top, better to the right." : "Largest on top."}`;
  }

  function cost(id, name) {
    const found = data.entries.filter((e) => stat(e, name));
    if (!found.length) return empty(id, "Not measured.");
    const list = [...found].sort((a, b) => stat(a, name).mean - stat(b, name).mean);
    const box = $(id);
    const axis = axisOf(name, list, { grow: 0.04 });
    axis.layout.range = [axis.low, axis.high + 0.3 * (axis.high - axis.low)]; // bars grow to the right; room for the numbers
    const { room, axis: rows } = rowsAxis(list, box.clientWidth);
    const layout = base(60 + 22 * list.length, { l: room, r: 8, t: 6, b: 40 });
    layout.xaxis = axis.layout;
    layout.yaxis = { ...rows, gridcolor: "rgba(0,0,0,0)" };
    layout.bargap = 0.35;
    const x = list.map((e) => axis.place(stat(e, name).mean));
    const y = list.map((_, i) => i);
    Plotly.react(box, [
      { type: "bar", orientation: "h", x, y, marker: { color: list.map(tint) }, text: list.map((e) => hover(e, [name])), textposition: "none", hovertemplate: "%{text}<extra></extra>" },
      { type: "scatter", mode: "text", x, y, text: list.map((e) => ` ${stat(e, name).short}`), textposition: "middle right", textfont: { color: colour("ink"), size: 12 }, hoverinfo: "skip", cliponaxis: false },
    ], layout, config);
  }

  function empty(id, why) {
    Plotly.purge($(id));
    $(id).textContent = why;
    $(id).classList.add("note");
  }

  // ---- start --------------------------------------------------------------------------------------------------

  function fill(id, chosen, wanted, none) {
    const select = $(id);
    for (const [title, cost] of [["metrics", false], ["costs", true]]) {
      const list = data.metrics.filter((m) => m.cost === cost && wanted(m));
      if (!list.length) continue;
      const group = document.createElement("optgroup");
      group.label = title;
      for (const m of list) group.append(Object.assign(new Option(m.name, m.name, false, m.name === chosen), { title: m.doc }));
      select.append(group);
    }
    if (none) select.append(new Option(none, ""));
  }

  const figures = [["plot-trade-off", tradeOff], ["plot-values", values], ["plot-passes", () => cost("plot-passes", "passes")], ["plot-seconds", () => cost("plot-seconds", "seconds")]];
  const redraw = (first) => figures.forEach(([, draw]) => draw(first === true));
  if (!data.metrics.length) {
    figures.forEach(([id]) => empty(id, "Nothing to draw: no cell gave a result."));
    document.querySelectorAll("#trade-off .controls, #values .controls").forEach((box) => { box.hidden = true; });
    return;
  }
  fill("pick-x", data.x, () => true);
  fill("pick-y", data.y, () => true);
  fill("pick-size", "passes", (m) => m.cost, "all the same");
  fill("pick-values", data.primary, () => true);
  for (const id of ["pick-x", "pick-y"]) $(id).addEventListener("change", () => tradeOff(true));
  for (const id of ["pick-size", "zoom"]) $(id).addEventListener("change", () => tradeOff(false));
  $("pick-values").addEventListener("change", values);
  redraw(true);

  let waiting, width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; redraw(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.print; redraw(); });
})();
