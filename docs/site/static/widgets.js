"use strict";
// Two widgets without a library. Each writes its numbers into the page as text, where a reader, or a test, finds them.

const element = (parent, name, attributes = {}, text = "") => {
  const svg = ["svg", "path", "line", "text", "g"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
};

function slider(parent, label, attributes, show) {
  const row = element(parent, "label", { class: "slider" });
  const said = element(row, "span");
  const input = element(row, "input", { type: "range", ...attributes });
  const update = () => { said.textContent = label(Number(input.value)); show(Number(input.value)); };
  input.addEventListener("input", update);
  return update;
}

function linearSnr(T = 1000, first = 1e-4, last = 0.02) {
  let kept = 1;
  return Array.from({ length: T }, (_, t) => {
    kept *= 1 - (first + (last - first) * t / (T - 1));
    return kept / (1 - kept);
  });
}

function gammaWidget(parent) {
  const snr = linearSnr(), T = snr.length, H = 320, left = 58, bottom = 44, top = 30;
  const W = Math.max(300, Math.min(640, parent.clientWidth - 34)); // so that letters keep their size on a phone
  const decades = [-4, 2];
  const x = (t) => left + (W - left - 10) * t / (T - 1);
  const y = (log) => top + (H - bottom - top) * (decades[1] - log) / (decades[1] - decades[0]);
  const controls = element(parent, "div");
  const scroller = element(parent, "div", { class: "plot" });
  const plot = element(scroller, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "the weight by timestep" });
  for (let power = decades[0]; power <= decades[1]; power++) {
    element(plot, "line", { x1: left, x2: W - 10, y1: y(power), y2: y(power), class: "grid" });
    const tick = element(plot, "text", { x: left - 8, y: y(power) + 5, "text-anchor": "end" });
    tick.textContent = 10 ** power >= 0.01 ? String(10 ** power) : power === -3 ? "0.001" : "0.0001";
  }
  for (const t of [0, 250, 500, 750, 999]) {
    element(plot, "text", { x: x(t), y: H - bottom + 20, "text-anchor": t === 999 ? "end" : "middle" }, String(t));
  }
  element(plot, "text", { x: 0, y: 14 }, "weight, with mean 1 (logarithmic scale)");
  element(plot, "text", { x: (left + W) / 2, y: H - 6, "text-anchor": "middle" }, "timestep t");
  element(plot, "line", { x1: x(500), x2: x(500), y1: top, y2: H - bottom, class: "half" });
  const curve = element(plot, "path", { class: "curve" });
  const out = element(parent, "p", { id: "gamma-numbers", "aria-live": "polite" });
  const show = (gamma) => {
    const raw = snr.map((s) => s ** -gamma), sum = raw.reduce((a, b) => a + b);
    const weight = raw.map((w) => w * T / sum);
    const share = weight.slice(501).reduce((a, b) => a + b) / T;
    const size = T * T / weight.reduce((a, w) => a + w * w, 0);
    const at = (w) => y(Math.max(decades[0], Math.min(decades[1], Math.log10(w))));
    curve.setAttribute("d", weight.map((w, t) => `${t ? "L" : "M"}${x(t).toFixed(1)} ${at(w).toFixed(1)}`).join(""));
    out.textContent = `Share of the weight above t = 500: ${(100 * share).toFixed(1)} %. ` +
      `Effective sample size: ${size.toFixed(0)} of ${T} timesteps (${(100 * size / T).toFixed(1)} %).`;
  };
  const name = (gamma) => ({ 0: " (constant)", 0.5: " (debiased)", 1: " (1/SNR)" })[gamma] || "";
  slider(controls, (gamma) => `γ = ${gamma.toFixed(2)}${name(gamma)}`, { id: "gamma", min: 0, max: 1, step: 0.05, value: 0.5 }, show)();
}

function picture(parent, pixels, size, alt) {
  const canvas = element(parent, "canvas", { width: size, height: size, role: "img", "aria-label": alt });
  const bytes = atob(pixels), image = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes.charCodeAt(3 * i + c);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function tWidget(parent, data) {
  if (!data) {
    element(parent, "p", { class: "missing" }, "The images are not in this checkout. The command \"make reproduce\" makes them, and \"make site\" then shows them here.");
    return;
  }
  const names = { x_t: "noisy image xₜ", constant: "constant weight", debiased: "debiased weight", optimum: "optimum" };
  const controls = element(parent, "div"), table = element(parent, "div", { class: "estimates" });
  const row = (name, pixels, rms) => {
    element(table, "div", { class: "name" }, name);
    pixels.forEach((one, i) => {
      const cell = element(table, "div");
      picture(cell, one, data.resolution, `${name}, image ${i + 1}`);
      if (rms) element(cell, "span", {}, rms[i].toPrecision(2));
    });
  };
  const show = (k) => {
    table.replaceChildren();
    table.style.setProperty("--images", data.x0.length);
    row("clean image x₀", data.x0);
    for (const [name, one] of Object.entries(data.rows)) row(names[name] || name, one.pixels[k], one.rms && one.rms[k]);
  };
  const last = data.t.length - 1;
  slider(controls, (k) => `t = ${data.t[k]}`, { id: "timestep", min: 0, max: last, step: 1, value: Math.max(0, last - 1) }, show)();
}

gammaWidget(document.getElementById("gamma-widget"));
tWidget(document.getElementById("t-widget"), window.ONE_STEP);
