// Plays a recording of mulligan in a page. It only draws: every array, range, colour and text comes from the recording.
// Charts: plotly.js (MIT), beside this file. Keys, while the player has the focus: space, left, right, Home, End.
(function () {
  "use strict";

  const Z95 = 1.96;

  // {shape, data: base64 of little-endian float32} -> {shape, values}
  function decoded(item) {
    if (Array.isArray(item)) return item.map(decoded);
    if (item === null || typeof item !== "object") return item;
    if (typeof item.base64 === "string") {
      const text = atob(item.base64), bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
      return { shape: item.shape, values: new Float32Array(bytes.buffer) };
    }
    return Object.fromEntries(Object.entries(item).map(([key, value]) => [key, decoded(value)]));
  }

  // The part of an array that a frame shows: the only one if nothing moves.
  function at(array, frame) {
    const size = array.values.length / array.shape[0], k = array.shape[0] > 1 ? frame : 0;
    return array.values.subarray(k * size, (k + 1) * size);
  }

  const column = (flat, k, width) => Array.from({ length: flat.length / width }, (_, i) => flat[i * width + k]);
  const rows = (flat, width) => Array.from({ length: flat.length / width }, (_, i) => Array.from(flat.subarray(i * width, (i + 1) * width)));

  const TRACES = {
    Points(layer, frame) {
      const xy = at(layer.xy, frame);
      const marker = { color: layer.colour, size: layer.size + 1, opacity: layer.opacity };
      return [{ type: "scatter", mode: "markers", x: column(xy, 0, 2), y: column(xy, 1, 2), marker, name: layer.label }];
    },
    Curve(layer, frame) {
      const x = Array.from(layer.x.values), found = [];
      if (layer.low && layer.high) {
        const edge = { type: "scatter", mode: "lines", x, line: { width: 0 }, showlegend: false, hoverinfo: "skip" };
        found.push({ ...edge, y: Array.from(at(layer.low, frame)) });
        found.push({ ...edge, y: Array.from(at(layer.high, frame)), fill: "tonexty", fillcolor: layer.colour + "33" });
      }
      const line = { color: layer.colour, width: 2, dash: layer.dashed ? "dash" : "solid" };
      const mode = layer.dots ? "lines+markers" : "lines";
      found.push({ type: "scatter", mode, x, y: Array.from(at(layer.y, frame)), line, marker: { size: 6 }, name: layer.label });
      return found;
    },
    Paths(layer, frame) {
      const [paths, points] = layer.xy.shape, x = [], y = [], endX = [], endY = [];
      const shown = Math.max(1, Math.round(at(layer.shown, frame)[0]));
      for (let p = 0; p < paths; p++) {
        for (let i = 0; i < shown; i++) {
          x.push(layer.xy.values[2 * (p * points + i)]);
          y.push(layer.xy.values[2 * (p * points + i) + 1]);
        }
        endX.push(x[x.length - 1]);
        endY.push(y[y.length - 1]);
        x.push(null);
        y.push(null);
      }
      const line = { color: layer.colour, width: layer.width };
      return [
        { type: "scatter", mode: "lines", x, y, line, opacity: layer.opacity, name: layer.label },
        { type: "scatter", mode: "markers", x: endX, y: endY, marker: { color: layer.colour, size: 5 }, showlegend: false },
      ];
    },
    Bars(layer, frame) {
      const error = layer.error && { type: "data", array: Array.from(at(layer.error, frame), (e) => Z95 * e), color: "#1b1f24" };
      const bar = { type: "bar", x: Array.from(layer.at.values), y: Array.from(at(layer.height, frame)), width: layer.width };
      return [{ ...bar, marker: { color: layer.colour }, name: layer.label, ...(error ? { error_y: error } : {}) }];
    },
    Arrows(layer, frame) {
      const from = at(layer.xy, frame), along = at(layer.along, frame), x = [], y = [], size = [];
      for (let i = 0; i < from.length; i += 2) {
        x.push(from[i], from[i] + along[i], null);
        y.push(from[i + 1], from[i + 1] + along[i + 1], null);
        size.push(0, 9, 0);
      }
      const marker = { symbol: "arrow", angleref: "previous", size, color: layer.colour };
      return [{ type: "scatter", mode: "lines+markers", x, y, marker, line: { color: layer.colour }, name: layer.label }];
    },
    Field(layer, frame) {
      const width = layer.z.shape[2], colours = layer.colours.map((colour, i) => [i / (layer.colours.length - 1), colour]);
      const grid = { x: Array.from(layer.x.values), y: Array.from(layer.y.values), z: rows(at(layer.z, frame), width) };
      const range = { zmin: layer.range[0], zmax: layer.range[1], colorscale: colours, showscale: layer.scale_bar };
      return [{ type: "heatmap", ...grid, ...range, name: layer.label, colorbar: { thickness: 10 } }];
    },
  };

  function axis(scale, bare) {
    const range = scale.log ? scale.range.map(Math.log10) : scale.range;
    const ticks = scale.names.length ? { tickvals: scale.names.map((_, i) => i), ticktext: scale.names } : {};
    const line = { showgrid: false, zeroline: false, showline: !bare, linecolor: "#565d66", ticks: bare ? "" : "outside" };
    const title = { text: escaped(scale.label), standoff: 6 };
    return { range, type: scale.log ? "log" : "linear", title, showticklabels: !bare, automargin: true, fixedrange: true, ...line, ...ticks };
  }

  // plotly.js reads a little HTML in its texts; ours are plain
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  function layout(panel, width) {
    const x = axis(panel.x, panel.bare), y = axis(panel.y, panel.bare);
    if (panel.square) Object.assign(y, { scaleanchor: "x", constrain: "domain" }), Object.assign(x, { constrain: "domain" });
    const legend = { x: 1, xanchor: "right", y: 1, yanchor: "top", bgcolor: "rgba(255,255,255,0.8)", font: { size: 11 } };
    const title = { text: escaped(panel.title), x: 0, xanchor: "left", font: { size: 13.5 }, pad: { l: 8 } };
    return {
      xaxis: x, yaxis: y, legend, title, dragmode: false, barmode: "overlay", showlegend: panel.legend && panel.layers.length > 1,
      margin: { l: 56, r: 12, t: 40, b: 44 }, height: width < 360 ? 300 : 340, width,
      font: { family: "system-ui, sans-serif", size: 12, color: "#1b1f24" }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    };
  }

  const element = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) key in node ? (node[key] = value) : node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // Drawn, because fonts lack half of the signs for play and pause.
  const SHAPES = {
    play: "M4 2 L14 8 L4 14Z", pause: "M3 2h4v12h-4Z M9 2h4v12h-4Z", first: "M2 2h2v12h-2Z M14 2 L5 8 L14 14Z",
    back: "M12 2 L6 8 L12 14 L10 14 L3 8 L10 2Z", step: "M4 2 L10 8 L4 14 L6 14 L13 8 L6 2Z",
  };
  const icon = (shape) => `<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="${SHAPES[shape]}"/></svg>`;

  function tableOf(panel, frame) {
    const head = element("tr", {}, element("th", {}), ...panel.heads.map((text) => element("th", { scope: "col" }, text)));
    const body = panel.cells[panel.cells.length > 1 ? frame : 0].map((cells, i) =>
      element("tr", {}, element("th", { scope: "row" }, panel.names[i]), ...cells.map((text) => element("td", {}, text))));
    return element("table", {}, element("caption", {}, panel.label), element("thead", {}, head), element("tbody", {}, ...body));
  }

  function play(root, source) {
    const recording = decoded(source), last = recording.captions.length - 1;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    let frame = 0, timer = null, speed = 1;

    const places = recording.panels.map((panel) => element("div", { className: panel.kind === "Table" ? "table" : "chart" }));
    const caption = element("p", { className: "said", "aria-live": "polite" });
    const numbers = element("dl", { className: "numbers" });
    const counter = element("span", { className: "counter" });
    const button = (shape, label, act) => {
      const made = element("button", { type: "button", title: label, "aria-label": label, onclick: act });
      made.innerHTML = icon(shape);
      return made;
    };
    const toggle = button("play", "Play or pause (space)", () => (timer ? pause() : start()));
    const scrub = element("input", { type: "range", min: 0, max: last, value: 0, "aria-label": "Frame", oninput: () => { pause(); show(+scrub.value); } });
    const pace = element("select", { "aria-label": "Speed", onchange: () => { speed = +pace.value; if (timer) { pause(); start(); } } },
      ...[0.25, 0.5, 1, 2, 4].map((x) => element("option", { value: x, selected: x === 1 }, `${x} ×`)));
    const bar = element("div", { className: "bar" }, button("first", "First frame (Home)", () => move(-Infinity)), button("back", "Back (left)", () => move(-1)),
      toggle, button("step", "Step (right)", () => move(1)), scrub, counter, pace);
    const checks = Object.entries(recording.checks).map(([statement, check]) =>
      element("li", { className: check.verdict }, `${check.verdict}: ${statement} `, element("small", {}, check.text)));
    const grid = element("div", { className: `panels columns-${recording.columns}` }, ...places);
    root.replaceChildren(element("h2", {}, recording.title), grid, bar, caption, numbers,
      element("p", { className: "see" }, element("b", {}, "See: "), recording.see),
      ...(checks.length ? [element("ul", { className: "checks" }, ...checks)] : []),
      element("pre", {}, element("code", {}, `import mulligan as mg\n${recording.code}`)));
    root.tabIndex = 0;
    root.classList.add("mulligan-recording");

    function draw() {
      recording.panels.forEach((panel, i) => {
        if (panel.kind === "Table") return places[i].replaceChildren(tableOf(panel, frame));
        const traces = panel.layers.flatMap((layer) => TRACES[layer.kind](layer, frame)).map((trace) => ({ ...trace, name: escaped(trace.name || "") }));
        Plotly.react(places[i], traces, layout(panel, places[i].clientWidth), { displayModeBar: false });
      });
    }

    function show(k) {
      frame = Math.min(last, Math.max(0, k));
      draw();
      caption.textContent = recording.captions[frame];
      counter.textContent = `${frame + 1} / ${last + 1}`;
      scrub.value = frame;
      numbers.replaceChildren(...recording.numbers.flatMap(([name, texts]) =>
        [element("dt", {}, name), element("dd", {}, texts[texts.length > 1 ? frame : 0])]));
    }
    function start() {
      if (frame === last) show(0);
      toggle.innerHTML = icon("pause");
      timer = setInterval(() => (frame < last ? show(frame + 1) : pause()), 1000 / (recording.rate * speed));
    }
    function pause() {
      clearInterval(timer);
      timer = null;
      toggle.innerHTML = icon("play");
    }
    function move(by) {
      pause();
      show(frame + by);
    }
    root.addEventListener("keydown", (event) => {
      if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
      const acts = { " ": () => (timer ? pause() : start()), ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => move(-Infinity), End: () => move(Infinity) };
      if (!acts[event.key] || (event.key === " " && event.target.tagName === "BUTTON")) return;
      event.preventDefault();
      acts[event.key]();
    });
    for (const place of places) if (place.className === "chart") place.setAttribute("role", "img");
    recording.panels.forEach((panel, i) => places[i].setAttribute("aria-label", `${panel.title || panel.label}. ${recording.see}`));
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      draw();
    }).observe(root);
    show(0);
    if (root.dataset.autoplay === "yes" && !calm) start();
  }

  // Each recording of a page is drawn when it comes near the window: a chapter holds several. For print, and at the
  // address PAGE#all, all of them are.
  function playAll() {
    const roots = document.querySelectorAll("[data-recording]"), drawn = new Set();
    const draw = (root) => {
      watch.unobserve(root);
      if (drawn.has(root)) return;
      drawn.add(root);
      play(root, JSON.parse(document.getElementById(root.dataset.recording).textContent));
    };
    const watch = new IntersectionObserver(
      (entries) => entries.filter((each) => each.isIntersecting).forEach((each) => draw(each.target)), { rootMargin: "400px" });
    roots.forEach((root) => watch.observe(root));
    const drawAll = () => roots.forEach(draw);
    if (location.hash === "#all") drawAll();
    window.addEventListener("beforeprint", drawAll);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", playAll);
  else playAll();
})();
