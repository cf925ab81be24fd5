"use strict";
// Okabe and Ito's colours, distinct for colour-blind readers; then the same with other dashes and symbols.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
const SHOWN = 8;
const $ = (id) => document.getElementById(id);
let all, now, hidden, order, tasksOnPage;

const unpack = async (id) => {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};

const element = (tag, text = "", properties = {}) =>
  Object.assign(document.createElement(tag), { textContent: text }, properties);

const fill = (id, names, chosen) => {
  const options = names.map((name, i) => element("option", name, { value: String(i) }));
  $(id).replaceChildren(...options);
  $(id).value = String(Math.max(0, Math.min(chosen, names.length - 1)));
};

const style = (method) => {
  if (method.single) return { color: "#767676", dash: "dash", symbol: "star" };
  if (method.label === now.reference) return { color: "#000000", dash: "solid", symbol: "circle" };
  const i = now.methods.filter((m) => !m.single && m.label !== now.reference).indexOf(method);
  const round = Math.floor(i / COLOURS.length);
  return { color: COLOURS[i % COLOURS.length], dash: DASHES[round % DASHES.length], symbol: SYMBOLS[round % SYMBOLS.length] };
};

const visible = () => now.methods.filter((m) => !hidden.has(m.label) && m.seeds.length);
const pale = (colour) => colour + "26";

function draw(id, traces, layout, missing) {
  const chart = $(id);
  Plotly.purge(chart);
  chart.classList.toggle("empty", !traces.length);
  chart.replaceChildren(...(traces.length ? [] : [element("span", missing)]));
  if (!traces.length) {
    chart.style.height = "";
    return;
  }
  const axis = { automargin: true, gridcolor: "#e6e8eb", zerolinecolor: "#767676", tickfont: { size: 12 } };
  const base = {
    margin: { l: 60, r: 14, t: 30, b: 44 }, font: { size: 13, color: "#1b1f24" }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    hovermode: "closest", legend: { font: { size: 12 } }, ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
  Plotly.newPlot(chart, traces, base, { responsive: true, displaylogo: false });
}

function bars(id, items, title, missing) {
  const shown = items.filter((item) => item.value && item.value.mean !== null)
    .sort((a, b) => a.value.mean - b.value.mean);
  const whisker = ({ value }) => value.interval || [value.mean, value.mean];
  const labels = shown.map(({ method }) => method.label);
  const traces = shown.length ? [{
    type: "bar", orientation: "h", name: "mean", y: labels, x: shown.map(({ value }) => value.mean),
    marker: { color: shown.map(({ method }) => style(method).color), opacity: 0.75 },
    error_x: { type: "data", symmetric: false, thickness: 1.6, width: 5, color: "#1b1f24",
      array: shown.map((item) => whisker(item)[1] - item.value.mean),
      arrayminus: shown.map((item) => item.value.mean - whisker(item)[0]) },
    hovertemplate: "%{y}: %{x:.2f}<extra></extra>", showlegend: false,
  }, {
    type: "scatter", mode: "markers", showlegend: false,
    y: shown.flatMap(({ method, value }) => value.seeds.map(() => method.label)), x: shown.flatMap(({ value }) => value.seeds),
    marker: { color: "#fff", size: 6, line: { color: "#1b1f24", width: 1 } }, hovertemplate: "%{x:.2f}<extra>seed</extra>",
  }] : [];
  $(id).style.height = `${Math.max(300, 90 + 24 * shown.length)}px`;
  draw(id, traces, { xaxis: { title: { text: title } }, yaxis: { type: "category" } }, missing);
}

function drawDeltas() {
  const name = now.deltas[$("delta").value] || "delta_p";
  bars("delta-chart", visible().map((method) => ({ method, value: method.deltas[name] })), `${name} (%)`,
    "No single-task runs of this protocol, and no reference: there are no gains.");
  $("difference-caption").textContent = now.reference
    ? `Difference of ${now.unit} to ${now.reference}, seed by seed: mean and 95% bootstrap interval` : "Difference to the reference";
  bars("difference-chart", visible().map((method) => ({ method, value: method.difference })), "percentage points",
    "There is no reference, or nothing to compare it with.");
}

function drawProfile() {
  $("profile-caption").textContent = `Gain of each metric over ${now.base} (%); the higher the better`;
  const labels = now.metrics.map((m) => `${m.task}<br>${m.name}`);
  const known = visible().filter((method) => !method.single && method.gains.some((gain) => gain !== null));
  const traces = known.map((method) => ({
    type: "scatter", mode: "lines+markers", name: method.label, x: labels, y: method.gains,
    line: { color: style(method).color, dash: style(method).dash, width: 2 }, marker: { symbol: style(method).symbol, size: 8 },
    hovertemplate: `${method.label}: %{y:.2f}%<extra></extra>`,
  }));
  draw("profile-chart", traces, { xaxis: { type: "category" }, yaxis: { title: { text: "gain (%)" }, zeroline: true } },
    "There is nothing to take a relative gain from.");
}

function drawSpeed() {
  const name = now.deltas.includes("delta_p") ? "delta_p" : now.deltas[0];
  const known = visible().filter((m) => m.time !== null && m.deltas[name] && m.deltas[name].mean !== null);
  const traces = known.map((method) => {
    const { mean, interval } = method.deltas[name];
    const [low, high] = interval || [mean, mean];
    return { type: "scatter", mode: "markers+text", name: method.label, x: [method.time], y: [mean],
      text: [method.label], textposition: "top right", showlegend: false, cliponaxis: false,
      marker: { color: style(method).color, symbol: style(method).symbol, size: 11 },
      error_y: { type: "data", symmetric: false, array: [high - mean], arrayminus: [mean - low], color: style(method).color, thickness: 1.3 },
      hovertemplate: `${method.label}: %{x:.2f}x, %{y:.2f}%<extra></extra>` };
  });
  draw("speed-chart", traces, {
    xaxis: { title: { text: `time a step, relative to ${now.reference}` } }, yaxis: { title: { text: `${name} (%)` }, zeroline: true },
  }, "Times are not known for a reference.");
}

const metricName = (m) => `${m.task}: ${m.name} ${m.higher === null ? "" : m.higher ? "↑" : "↓"}`;

function drawPareto() {
  const [i, j] = ["first", "second"].map((id) => tasksOnPage[$(id).value]);
  if (i === undefined || j === undefined) return draw("pareto-chart", [], {}, "It takes two tasks with a metric of known direction.");
  const volumes = now.volumes[`${Math.min(i, j)},${Math.max(i, j)}`];
  const known = visible().filter((method) => method.means[i] !== null && method.means[j] !== null);
  const traces = known.flatMap((method) => {
    const { color, symbol } = style(method);
    const volume = volumes && volumes[now.methods.indexOf(method)];
    const name = typeof volume === "number" ? `${method.label} (${volume.toFixed(3)})` : method.label;
    const both = method.seeds.map((_, s) => [method.values[i][s], method.values[j][s]]).filter(([x, y]) => x !== null && y !== null);
    return [{ type: "scatter", mode: "markers", x: both.map(([x]) => x), y: both.map(([, y]) => y), legendgroup: method.label,
      showlegend: false, marker: { color, symbol, size: 6, opacity: 0.5 }, hovertemplate: "%{x:.4g}, %{y:.4g}<extra>seed</extra>" },
    { type: "scatter", mode: "markers", x: [method.means[i]], y: [method.means[j]], name, legendgroup: method.label,
      marker: { color, symbol, size: 14, line: { color: "#fff", width: 1 } },
      hovertemplate: `${method.label}: %{x:.4g}, %{y:.4g}<extra></extra>` }];
  });
  const [xs, ys] = [now.metrics[i].higher ? 1 : -1, now.metrics[j].higher ? 1 : -1];
  const contending = known.filter((method) => !method.single).sort((a, b) => xs * (b.means[i] - a.means[i]));
  let reached = -Infinity;
  const front = contending.filter((m) => ys * m.means[j] > reached && ((reached = ys * m.means[j]), true));
  if (front.length > 1) traces.unshift({ type: "scatter", mode: "lines", name: "not dominated", x: front.map((m) => m.means[i]),
    y: front.map((m) => m.means[j]), line: { color: "#767676", width: 1.3, dash: "dot" }, hoverinfo: "skip" });
  draw("pareto-chart", traces, { xaxis: { title: { text: metricName(now.metrics[i]) } }, yaxis: { title: { text: metricName(now.metrics[j]) } } },
    "No method that is shown has both.");
}

function band({ steps, mean, deviation }, name, { color, dash }) {
  const line = { type: "scatter", mode: steps.length < 30 ? "lines+markers" : "lines", x: steps, y: mean, name, legendgroup: name,
    line: { color, dash, width: 2 }, marker: { size: 4 }, hovertemplate: `${name}: %{y:.4g} at %{x}<extra></extra>` };
  if (!deviation) return [line];
  const around = (sign) => mean.map((value, k) => value + sign * deviation[k]);
  return [{ type: "scatter", mode: "lines", x: [...steps, ...[...steps].reverse()], y: [...around(1), ...around(-1).reverse()],
    fill: "toself", fillcolor: pale(color), line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: name }, line];
}

const series = (label, name) => {
  const own = (now.series[label] || {})[name];
  return own && { steps: own[0], mean: own[1], deviation: own[2] };
};

function drawCurves() {
  const name = now.curves[$("curve").value];
  const traces = visible().flatMap((method) => {
    const own = series(method.label, name);
    return own ? band(own, method.label, style(method)) : [];
  });
  draw("curve-chart", traces, { xaxis: { title: { text: "step" } }, yaxis: { title: { text: name || "" } } },
    "No history.csv beside the results of the methods that are shown.");
}

function drawInside() {
  const label = now.inside[$("method").value];
  const names = Object.keys(now.series[label] || {});
  $("diagnosis").textContent = (now.diagnosis[label] || {}).sentence || "";
  const weights = names.filter((name) => name.startsWith("balancer/weight/")).flatMap((name, i) =>
    band(series(label, name), name.slice("balancer/weight/".length), { color: COLOURS[i % COLOURS.length], dash: DASHES[Math.floor(i / COLOURS.length) % 5] }));
  draw("weight-chart", weights, { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "weight" } } },
    "This method has no weights: it combines gradients entry by entry, or nothing is shared.");
  const cosines = names.filter((name) => name.startsWith("cosine/"));
  const scale = { colorscale: [[0, "#B2182B"], [0.25, "#EF8A62"], [0.5, "#F7F7F7"], [0.75, "#67A9CF"], [1, "#2166AC"]], zmin: -1, zmax: 1, colorbar: { title: { text: "cosine" }, thickness: 12 } };
  const pairs = cosines.map((name) => name.slice("cosine/".length).replace("~", " ~ "));
  const longest = cosines.map((name) => series(label, name)).sort((a, b) => b.steps.length - a.steps.length)[0];
  const over = cosines.length ? [{ type: "heatmap", x: longest.steps, y: pairs, z: cosines.map((name) => series(label, name).mean), ...scale }] : [];
  $("cosine-chart").style.height = `${Math.max(220, 110 + 20 * pairs.length)}px`;
  const none = "No cosines were recorded for this method.";
  draw("cosine-chart", over, { xaxis: { title: { text: "step" } }, yaxis: { type: "category" } }, none);
  const matrix = now.tasks.map((a, i) => now.tasks.map((b, j) => {
    const own = i === j ? null : series(label, `cosine/${a}~${b}`) || series(label, `cosine/${b}~${a}`);
    return i === j ? 1 : own ? own.mean.reduce((sum, value) => sum + value, 0) / own.mean.length : null;
  }));
  const square = { type: "heatmap", x: now.tasks, y: now.tasks, z: matrix, ...scale };
  if (now.tasks.length <= 8) Object.assign(square, { texttemplate: "%{z:.2f}" });
  draw("matrix-chart", cosines.length ? [square] : [], { yaxis: { autorange: "reversed", type: "category" }, xaxis: { type: "category" } }, none);
  drawLayers(now.diagnosis[label]);
}

function drawLayers(found) {
  const traces = found && found.layers.length ? [{ type: "heatmap", x: found.pairs, y: found.layers, z: found.shares, zmin: 0, zmax: 1,
    colorscale: "Cividis", colorbar: { title: { text: "share" }, thickness: 12, tickformat: ".0%" } }] : [];
  draw("layer-chart", traces, { yaxis: { autorange: "reversed", type: "category" }, xaxis: { type: "category" } },
    "No diagnosis.csv beside the results: train with callbacks=diagnose.");
}

function drawTable() {
  const { columns, seeds } = now.table;
  const titles = ["method", "seeds", ...columns.map((c) => `${c.title} ${c.arrow}`.trim())];
  const head = element("tr");
  titles.forEach((title, i) => {
    const cell = element("th");
    cell.append(element("button", title, { onclick: () => sortBy(i) }));
    if (order.column === i) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    head.append(cell);
  });
  $("table").tHead.replaceChildren(head);
  const rows = [...now.methods.keys()];
  const key = (k) => order.column === 0 ? now.methods[k].label : order.column === 1 ? now.methods[k].seeds.length
    : columns[order.column - 2].values[k];
  if (order.column !== null) rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1);
  });
  $("table").tBodies[0].replaceChildren(...rows.map((k) => {
    const method = now.methods[k];
    const row = element("tr", "", { className: hidden.has(method.label) ? "hidden" : "" });
    const box = element("input", "", { type: "checkbox", checked: !hidden.has(method.label), onchange: () => toggle(method.label) });
    box.setAttribute("aria-label", `show ${method.label}`);
    const swatch = element("span", "", { className: "swatch" });
    swatch.style.background = style(method).color;
    const first = element("td");
    first.append(box, swatch, method.label);
    row.append(first, element("td", seeds[k]), ...columns.map((c) => element("td", c.texts[k], { className: c.best === k ? "best" : "" })));
    return row;
  }));
}

function sortBy(column) {
  const higher = column < 2 ? column === 1 : now.table.columns[column - 2].higher !== false;
  order = { column, down: order.column === column ? !order.down : higher };
  drawTable();
}

function toggle(label) {
  if (!hidden.delete(label)) hidden.add(label);
  drawTable();
  drawShown();
}

function show(labels) {
  hidden = new Set(now.methods.map((m) => m.label).filter((label) => !labels.includes(label)));
  drawTable();
  drawShown();
}

const best = () => {
  const ranked = now.methods.filter((m) => !m.single).sort((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity)).slice(0, SHOWN);
  return [...ranked.map((m) => m.label), now.reference, ...now.methods.filter((m) => m.single).map((m) => m.label)];
};

function drawShown() {
  [drawDeltas, drawProfile, drawSpeed, drawPareto, drawCurves].forEach((one) => one());
}

function list(id, items) {
  $(id).replaceChildren(...items);
}

function note({ kind, text, details }) {
  const item = element("li");
  item.append(element("b", `${kind}: `), text);
  if (details) {
    const more = element("details");
    more.append(element("summary", "error"), element("pre", details));
    item.append(more);
  }
  return item;
}

function choose(index) {
  now = all.comparisons[index];
  order = { column: null, down: false };
  hidden = new Set();
  if (now.methods.length > SHOWN + 4) hidden = new Set(now.methods.map((m) => m.label).filter((label) => !best().includes(label)));
  $("title").textContent = now.title;
  $("conclusion").textContent = now.conclusion;
  $("source").textContent = `Protocol ${now.protocol}. ` + (now.source ? `Single-task values: ${now.source}.` : "There are no single-task values.");
  const notes = [...all.notes, ...now.notes];
  list("notes", notes.map(note));
  $("notes-section").hidden = !notes.length;
  list("verdicts", now.sentences.map((sentence) => element("li", sentence)));
  fill("delta", now.deltas, now.deltas.indexOf("delta_p"));
  tasksOnPage = now.metrics.map((_, i) => i).filter((i) => now.metrics[i].higher !== null);
  const names = tasksOnPage.map((i) => metricName(now.metrics[i]));
  const other = tasksOnPage.findIndex((i) => now.metrics[i].task !== now.metrics[tasksOnPage[0]].task);
  fill("first", names, 0);
  fill("second", names, other);
  fill("curve", now.curves, now.curves.findIndex((name) => !name.includes("loss")));
  fill("method", now.inside, now.inside.indexOf(now.reference));
  drawTable();
  drawShown();
  drawInside();
}

async function start() {
  document.head.append(element("script", await unpack("plotly")));
  all = JSON.parse(await unpack("data"));
  $("found").textContent = all.found;
  fill("comparison", all.comparisons.map((c) => c.title), 0);
  $("choice").hidden = all.comparisons.length < 2;
  const on = (id, action) => $(id).addEventListener("change", action);
  on("comparison", () => choose(Number($("comparison").value)));
  on("delta", drawDeltas);
  on("first", drawPareto);
  on("second", drawPareto);
  on("curve", drawCurves);
  on("method", drawInside);
  $("all").onclick = () => show(now.methods.map((m) => m.label));
  $("none").onclick = () => show([]);
  $("top").onclick = () => show(best());
  choose(0);
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  $("conclusion").textContent = `The page could not be drawn: ${error}. It needs a browser of 2023 or later; report.md holds the tables.`;
  document.body.dataset.ready = "failed";
});
