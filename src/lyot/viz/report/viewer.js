// Viewers of the report: stretch, zoom, step through frames, read values at the cursor.
"use strict";
(() => {
  const values = (element) => JSON.parse(element.textContent);
  const lut = {};
  for (const [name, text] of Object.entries(values(document.getElementById("color-maps")))) lut[name] = bytes(text);

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  // Frames are little-endian floats of 16 bits.
  function pixels(frame) {
    if (frame.pixels) return frame.pixels;
    const raw = bytes(frame.data), view = new DataView(raw.buffer);
    const n = frame.width * frame.height, out = new Float32Array(n);
    for (let i = 0; i < n; i++) out[i] = half(view.getUint16(2 * i, true)) * frame.scale;
    frame.data = null;
    frame.pixels = out;
    return out;
  }

  function half(h) {
    const sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, part = h & 1023;
    if (exponent === 31) return part ? NaN : sign * Infinity;
    if (exponent === 0) return sign * part * 2 ** -24;
    return sign * (1 + part / 1024) * 2 ** (exponent - 15);
  }

  function digits(value) {
    if (!Number.isFinite(value)) return "no value";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(3) : value.toPrecision(4);
  }

  // Right ascension and declination [degree] of offsets from the star [arcsec] in the tangent plane.
  function celestial([ra, dec], east, north) {
    const unit = Math.PI / 180 / 3600, xi = east * unit, eta = north * unit, d = dec * Math.PI / 180;
    const along = Math.cos(d) - eta * Math.sin(d);
    const out = [Math.atan2(xi, along), Math.atan2(Math.sin(d) + eta * Math.cos(d), Math.hypot(xi, along))];
    return [((ra + out[0] * 180 / Math.PI) % 360 + 360) % 360, out[1] * 180 / Math.PI];
  }

  function sexagesimal(value, places) {
    const scale = 10 ** places, ticks = Math.round(Math.abs(value) * 3600 * scale), second = ticks / scale;
    const parts = [Math.floor(second / 3600), Math.floor(second / 60) % 60].map((v) => String(v).padStart(2, "0"));
    return [...parts, (second % 60).toFixed(places).padStart(places + 3, "0")].join(" ");
  }

  class Viewer {
    constructor(root) {
      this.root = root;
      this.panel = values(root.querySelector("script"));
      this.canvas = root.querySelector("canvas.image");
      this.readout = root.querySelector(".readout");
      this.choice = this.panel.axes.map((axis) => axis.start);
      this.zoom = 1;
      this.map = Object.keys(lut)[0];
      this.shape = "asinh";
      this.low = 0; this.high = 1;
      this.cursor = null;
      this.north = this.panel.north;
      this.build();
      this.center();
      this.draw();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }

    frame() {
      let at = 0;
      this.panel.axes.forEach((axis, k) => { at = at * axis.names.length + this.choice[k]; });
      return this.panel.frames[at];
    }

    center() {
      const f = this.frame();
      this.middle = f.star ? [f.star[0], f.star[1]] : [(f.width - 1) / 2, (f.height - 1) / 2];
      // All of the frame is shown, about the star.
      const corners = [[-0.5, -0.5], [f.width - 0.5, -0.5], [-0.5, f.height - 0.5], [f.width - 0.5, f.height - 0.5]];
      this.full = 2 * Math.max(...corners.flatMap(([x, y]) => this.turned(x - this.middle[0], this.middle[1] - y).map(Math.abs)));
    }

    // How far the image is turned, clockwise, so that north is up [radian].
    turn() {
      const f = this.frame();
      return this.north && f.pa_y !== null ? -f.pa_y * Math.PI / 180 : 0;
    }

    turned(u, v, back = 1) {
      const a = back * this.turn(), c = Math.cos(a), s = Math.sin(a);
      return [u * c - v * s, u * s + v * c];
    }

    reset() { this.zoom = 1; this.center(); this.draw(); }

    northUp() {
      this.north = !this.north;
      this.root.querySelector("button.north").setAttribute("aria-pressed", this.north);
      this.reset();
    }

    // Between the image that is shown and the first one of the axis.
    blink() {
      const axis = this.panel.axes.findIndex((a) => a.names[0] === "before");
      if (axis < 0) return;
      const select = this.root.querySelector(`select[data-axis="${this.panel.axes[axis].title}"]`);
      const show = (k) => { this.choice[axis] = k; select.value = k; this.draw(); this.read(); };
      this.root.querySelector("button.blink").setAttribute("aria-pressed", !this.timer);
      if (this.timer) {
        clearInterval(this.timer);
        this.timer = null;
        show(this.kept);
        return;
      }
      this.kept = this.choice[axis] || this.panel.axes[axis].names.length - 1;
      this.timer = setInterval(() => show(this.choice[axis] ? 0 : this.kept), 600);
    }

    // Show the place of a mark, as large as its surroundings allow to compare.
    show(text) {
      const mark = this.frame().marks.find((m) => m.text === text);
      if (!mark) return;
      this.zoom = 4;
      this.middle = [mark.x, mark.y];
      this.cursor = [Math.round(mark.x), Math.round(mark.y)];
      this.draw();
      this.read();
    }

    label(text, child) {
      const label = document.createElement("label");
      label.append(text, child);
      return label;
    }

    select(names, start, change) {
      const select = document.createElement("select");
      names.forEach((name, k) => select.append(new Option(name, k, k === start, k === start)));
      select.addEventListener("change", () => change(Number(select.value)));
      return select;
    }

    range(value, change) {
      const input = document.createElement("input");
      Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value });
      input.addEventListener("input", () => change(Number(input.value)));
      return input;
    }

    button(text, name, action) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", name);
      button.addEventListener("click", action);
      return button;
    }

    build() {
      const box = this.root.querySelector(".controls");
      this.panel.axes.forEach((axis, k) => {
        if (axis.names.length < 2) return;
        const select = this.select(axis.names, this.choice[k], (v) => {
          this.choice[k] = v; this.draw(); this.read();
        });
        select.dataset.axis = axis.title;
        const step = (by) => {
          const n = axis.names.length;
          this.choice[k] = (this.choice[k] + by + n) % n;
          select.value = this.choice[k];
          this.draw(); this.read();
        };
        box.append(this.label(axis.title, select),
          this.button("\u2190", `previous ${axis.title}`, () => step(-1)),
          this.button("\u2192", `next ${axis.title}`, () => step(1)));
      });
      const shapes = ["asinh", "linear", "square root"];
      box.append(this.label("stretch", this.select(shapes, 0, (v) => { this.shape = shapes[v]; this.draw(); })));
      const maps = Object.keys(lut);
      box.append(this.label("colors", this.select(maps, maps.indexOf(this.map), (v) => { this.map = maps[v]; this.draw(); })));
      box.append(this.label("black", this.range(0, (v) => { this.low = v; this.draw(); })));
      box.append(this.label("white", this.range(1, (v) => { this.high = v; this.draw(); })));
      box.append(this.button("+", "zoom in", () => this.zoomBy(1.5)), this.button("\u2212", "zoom out", () => this.zoomBy(1 / 1.5)),
        this.button("reset", "reset the view", () => this.reset()));
      const toggle = (name, action) => {
        const button = this.button(name, name, action);
        button.className = name.split(" ")[0];
        button.setAttribute("aria-pressed", name === "north up" && this.north);
        box.append(button);
      };
      if (this.panel.frames.some((f) => f.pa_y !== null)) toggle("north up", () => this.northUp());
      if (this.panel.axes.some((axis) => axis.names[0] === "before")) toggle("blink", () => this.blink());
      const c = this.canvas;
      c.addEventListener("wheel", (e) => { e.preventDefault(); this.zoomBy(e.deltaY < 0 ? 1.2 : 1 / 1.2, this.at(e)); }, { passive: false });
      c.addEventListener("pointerdown", (e) => { this.drag = { at: [e.clientX, e.clientY], middle: this.middle }; c.setPointerCapture(e.pointerId); this.point(e); });
      c.addEventListener("pointerup", () => { this.drag = null; });
      c.addEventListener("pointermove", (e) => {
        if (this.drag && e.buttons) {
          const s = this.span() / c.clientWidth, [u, v] = this.turned(e.clientX - this.drag.at[0], e.clientY - this.drag.at[1], -1);
          this.middle = [this.drag.middle[0] - u * s, this.drag.middle[1] + v * s];
          this.draw();
        }
        this.point(e);
      });
      c.addEventListener("click", (e) => this.toRow(e));
      c.addEventListener("keydown", (e) => this.key(e));
    }

    span() { return this.full / this.zoom; }

    // The image's position, in pixels, under a pointer.
    at(e) {
      const box = this.canvas.getBoundingClientRect(), s = this.span() / box.width;
      const [u, v] = this.turned(e.clientX - box.left - box.width / 2, e.clientY - box.top - box.height / 2, -1);
      return [this.middle[0] + u * s, this.middle[1] - v * s];
    }

    // The row of the table that belongs to a circle.
    toRow(e) {
      const [x, y] = this.at(e);
      const mark = this.frame().marks.find((m) => Math.hypot(m.x - x, m.y - y) < m.r);
      if (mark) document.getElementById(`source-${mark.text}`)?.focus();
    }

    zoomBy(factor, about) {
      const before = this.zoom;
      this.zoom = Math.min(Math.max(this.zoom * factor, 1), 40);
      if (about) {
        const k = before / this.zoom;
        this.middle = [about[0] + (this.middle[0] - about[0]) * k, about[1] + (this.middle[1] - about[1]) * k];
      }
      if (this.zoom === 1) this.center();
      this.draw();
    }

    point(e) {
      const [x, y] = this.at(e);
      this.cursor = [Math.round(x), Math.round(y)];
      this.read();
    }

    key(e) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (e.key in moves) {
        const [dx, dy] = moves[e.key], step = e.shiftKey ? 10 : 1;
        const [x, y] = this.cursor || this.middle.map(Math.round), f = this.frame();
        this.cursor = [Math.min(Math.max(x + dx * step, 0), f.width - 1), Math.min(Math.max(y + dy * step, 0), f.height - 1)];
      } else if (e.key === "+" || e.key === "=") this.zoomBy(1.5);
      else if (e.key === "-") this.zoomBy(1 / 1.5);
      else if (e.key === "0") this.reset();
      else if (e.key === "n") this.northUp();
      else if (e.key === "b") this.blink();
      else return;
      e.preventDefault();
      this.draw();
      this.read();
    }

    read() {
      if (!this.cursor) return;
      const f = this.frame(), [x, y] = this.cursor;
      if (x < 0 || y < 0 || x >= f.width || y >= f.height) { this.readout.textContent = ""; return; }
      const value = pixels(f)[y * f.width + x];
      let text = `${digits(value)}${Number.isFinite(value) && f.unit ? " " + f.unit : ""} at pixel x ${x + f.x0}, y ${y + f.y0}`;
      if (f.star) {
        const dx = x - f.star[0], dy = y - f.star[1];
        // To the left and up of square pixels; by the WCS of an exposure to the east and north.
        let east = -dx * f.arcsec, north = dy * f.arcsec, turn = f.pa_y;
        if (f.sky) {
          [east, north] = f.sky.map((coefs) => {
            let sum = 0, n = 0;
            for (let k = 1; n < coefs.length; k++)
              for (let j = 0; j <= k; j++) sum += coefs[n++] * dy ** (k - j) * dx ** j;
            return sum;
          });
          turn = 0;
        }
        text += `; separation ${Math.hypot(east, north).toFixed(3)} arcsec`;
        if (turn !== null) {
          const pa = ((Math.atan2(east, north) * 180 / Math.PI + turn) % 360 + 360) % 360;
          text += `, position angle ${pa.toFixed(1)} degrees`;
          if (f.radec) {
            const a = turn * Math.PI / 180, c = Math.cos(a), s = Math.sin(a);
            const [ra, dec] = celestial(f.radec, east * c + north * s, north * c - east * s);
            text += `; RA ${sexagesimal(ra / 15, 4)}, Dec ${dec < 0 ? "\u2212" : "+"}${sexagesimal(dec, 3)}`;
          }
        }
      }
      this.readout.textContent = text;
      this.root.dataset.value = value;
    }

    // From a value to 0..1, by the stretch; the frame gives its limits and its linear width.
    tone(f) {
      const [a, b] = f.range, lo = a + this.low * (b - a), hi = a + this.high * (b - a) || a + 1e-9;
      const soft = f.soft, shape = this.shape;
      const g = shape === "asinh" ? (v) => Math.asinh(v / soft) : shape === "linear" ? (v) => v : (v) => Math.sqrt(Math.max(v - lo, 0));
      const g0 = g(lo), g1 = g(hi);
      return (v) => (g(v) - g0) / (g1 - g0 || 1);
    }

    draw() {
      const ratio = window.devicePixelRatio || 1, size = Math.max(Math.round(this.canvas.clientWidth * ratio), 64);
      if (this.canvas.width !== size) { this.canvas.width = size; this.canvas.height = size; }
      const f = this.frame(), data = pixels(f), tone = this.tone(f), colors = lut[this.map];
      const small = document.createElement("canvas");
      small.width = f.width; small.height = f.height;
      const image = small.getContext("2d").createImageData(f.width, f.height), out = image.data;
      for (let y = 0; y < f.height; y++) {
        for (let x = 0; x < f.width; x++) {
          const v = data[y * f.width + x], at = 4 * ((f.height - 1 - y) * f.width + x);
          if (!Number.isFinite(v)) continue;
          const k = 3 * Math.min(Math.max(Math.round(tone(v) * 255), 0), 255);
          out[at] = colors[k]; out[at + 1] = colors[k + 1]; out[at + 2] = colors[k + 2]; out[at + 3] = 255;
        }
      }
      small.getContext("2d").putImageData(image, 0, 0);
      const ctx = this.canvas.getContext("2d"), s = size / this.span();
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.clearRect(0, 0, size, size);
      ctx.imageSmoothingEnabled = false;
      const left = size / 2 - (this.middle[0] + 0.5) * s, top = size / 2 - (f.height - 0.5 - this.middle[1]) * s;
      ctx.translate(size / 2, size / 2);
      ctx.rotate(this.turn());
      ctx.drawImage(small, left - size / 2, top - size / 2, f.width * s, f.height * s);
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      this.marks(ctx, f, s, size, ratio);
      this.bar(f, tone, colors);
      this.root.dataset.frame = f.name;
    }

    place(x, y, s, size) {
      return this.turned((x - this.middle[0]) * s, (this.middle[1] - y) * s).map((v) => size / 2 + v);
    }

    marks(ctx, f, s, size, ratio) {
      const stroke = (draw, color) => {
        for (const [width, style] of [[4 * ratio, "rgba(0,0,0,.55)"], [1.6 * ratio, color]]) {
          ctx.lineWidth = width; ctx.strokeStyle = style; ctx.beginPath(); draw(); ctx.stroke();
        }
      };
      const write = (text, x, y, align) => {
        ctx.font = `${12 * ratio}px system-ui, sans-serif`;
        ctx.textAlign = align || "center"; ctx.textBaseline = "middle";
        ctx.lineWidth = 3 * ratio; ctx.strokeStyle = "rgba(0,0,0,.7)"; ctx.strokeText(text, x, y);
        ctx.fillStyle = "#fff"; ctx.fillText(text, x, y);
      };
      if (f.star) {
        const [x, y] = this.place(f.star[0], f.star[1], s, size), r = 6 * ratio;
        stroke(() => { ctx.moveTo(x - r, y); ctx.lineTo(x + r, y); ctx.moveTo(x, y - r); ctx.lineTo(x, y + r); }, "#fff");
      }
      for (const mark of f.marks) {
        const [x, y] = this.place(mark.x, mark.y, s, size), r = Math.max(mark.r * s, 6 * ratio);
        stroke(() => ctx.arc(x, y, r, 0, 7), mark.text.startsWith("K") ? "#ffc45f" : "#5ff0a0");
        write(mark.text, x + r + 9 * ratio, y - r);
      }
      if (f.pa_y !== null) {
        const length = 30 * ratio, x0 = size - 52 * ratio, y0 = size - 52 * ratio;
        for (const [name, angle] of [["N", 0], ["E", 90]]) {
          const a = (angle - f.pa_y) * Math.PI / 180 - this.turn(), dx = -Math.sin(a), dy = -Math.cos(a);
          const x1 = x0 + dx * length, y1 = y0 + dy * length;
          stroke(() => {
            ctx.moveTo(x0, y0); ctx.lineTo(x1, y1);
            for (const turn of [2.6, -2.6]) { ctx.moveTo(x1, y1); ctx.lineTo(x1 + 7 * ratio * (dx * Math.cos(turn) - dy * Math.sin(turn)), y1 + 7 * ratio * (dx * Math.sin(turn) + dy * Math.cos(turn))); }
          }, "#fff");
          write(name, x0 + dx * (length + 11 * ratio), y0 + dy * (length + 11 * ratio));
        }
      }
      const steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], most = 0.3 * size / s * f.arcsec;
      const arcsec = steps.filter((v) => v <= most).pop() || 0.05, width = arcsec / f.arcsec * s;
      const bx = 14 * ratio, by = size - 14 * ratio;
      stroke(() => { ctx.moveTo(bx, by); ctx.lineTo(bx + width, by); }, "#fff");
      write(`${arcsec} arcsec`, bx, by - 12 * ratio, "left");
      if (this.cursor && document.activeElement === this.canvas) {
        const [x, y] = this.place(this.cursor[0], this.cursor[1], s, size), r = Math.max(s / 2, 4 * ratio);
        stroke(() => ctx.rect(x - r, y - r, 2 * r, 2 * r), "#ffd84d");
      }
    }

    bar(f, tone, colors) {
      const bar = this.root.querySelector(".bar canvas"), [a, b] = f.range;
      bar.width = 256; bar.height = 1;
      const ctx = bar.getContext("2d"), image = ctx.createImageData(256, 1);
      for (let i = 0; i < 256; i++) {
        const k = 3 * Math.min(Math.max(Math.round(tone(a + (b - a) * i / 255) * 255), 0), 255);
        image.data.set([colors[k], colors[k + 1], colors[k + 2], 255], 4 * i);
      }
      ctx.putImageData(image, 0, 0);
      const [low, high] = this.root.querySelectorAll(".bar span");
      low.textContent = digits(a); high.textContent = `${digits(b)} ${f.unit}`;
    }
  }

  for (const root of document.querySelectorAll(".viewer")) root.viewer = new Viewer(root);

  // A print shows what is folded, and leaves it as it was on the screen.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));

  for (const button of document.querySelectorAll("button.source")) {
    button.addEventListener("click", () => {
      const viewers = [...document.querySelectorAll(".viewer")].map((root) => root.viewer);
      viewers.forEach((viewer) => viewer.show(button.textContent));
      viewers.find((viewer) => viewer.frame().marks.length)?.root.scrollIntoView({ block: "nearest" });
    });
  }

  for (const button of document.querySelectorAll("button.download")) {
    button.addEventListener("click", () => {
      const table = button.closest(".table").querySelector("table");
      const quote = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      const rows = [...table.rows].map((row) => [...row.cells].map((cell) => quote(cell.dataset.value || cell.textContent.trim())).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([rows.join("\n") + "\n"], { type: "text/csv" }));
      link.download = `${button.dataset.name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
