// The large picture: photo and labels on top of each other, what is below the pointer, zoom, before and after.

export function make(tag, set = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), set);
  made.append(...inside.filter(one => one != null));
  return made;
}

export function rgb(colour) {
  return [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
}

// Paint labels: `looks[n]` is how label n is drawn: {colour: [r, g, b], alpha, shade}.
export function paint(canvas, { width, height, values }, looks) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  const pack = ([r, g, b], a) => little ? (a << 24 | b << 16 | g << 8 | r) >>> 0 : (r << 24 | g << 16 | b << 8 | a) >>> 0;
  const table = looks.map(look => pack(look.colour, look.alpha));
  const border = pack([255, 255, 255], 235);
  const thick = Math.max(1, Math.round(Math.max(width, height) / 600));
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const here = values[at];
      const right = x + thick < width ? values[at + thick] : here;
      const below = y + thick < height ? values[at + thick * width] : here;
      const edge = (right !== here && (looks[here].edge || looks[right].edge)) || (below !== here && (looks[here].edge || looks[below].edge));
      pixels[at] = edge ? border : table[here];
    }
  }
  context.putImageData(image, 0, 0);
}

export class Viewer {
  // `heard.hover(label)`, `heard.pick(x, y, label)`, with the place in pixels of the labels; label -1: none.
  constructor(heard) {
    const find = id => document.getElementById(id);
    Object.assign(this, { heard, frame: find("frame"), layers: find("layers"), photo: find("photo"), canvas: find("labels") });
    Object.assign(this, { divider: find("divider"), bubble: find("bubble"), cross: find("cross"), split: find("split") });
    Object.assign(this, { opacity: find("opacity"), scale: 1, left: 0, top: 0, map: null, size: null, at: null, touches: new Map() });
    new ResizeObserver(() => this.place()).observe(this.frame);
    this.opacity.oninput = () => this.style();
    this.split.oninput = () => this.style();
    find("in").onclick = () => this.zoom(1.5);
    find("out").onclick = () => this.zoom(1 / 1.5);
    find("fit").onclick = () => this.fit();
    this.listen();
  }

  listen() {
    const frame = this.frame;
    frame.addEventListener("pointerdown", event => this.down(event));
    frame.addEventListener("pointermove", event => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, event => this.up(event, name === "pointerup"));
    frame.addEventListener("pointerleave", () => this.leave());
    frame.addEventListener("wheel", event => {
      if (!this.size || !(event.ctrlKey || event.metaKey || this.scale > 1)) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), this.spot(event));
    }, { passive: false });
    frame.addEventListener("dblclick", event => this.zoom(this.scale > 1 ? 0 : 2.5, this.spot(event)));
    frame.addEventListener("keydown", event => this.key(event));
    frame.addEventListener("blur", () => this.leave());
    this.divider.addEventListener("pointerdown", event => {
      event.stopPropagation();
      this.divider.setPointerCapture(event.pointerId);
      this.divider.onpointermove = moved => {
        const box = this.layers.getBoundingClientRect();
        this.split.value = Math.min(100, Math.max(0, 100 * (moved.clientX - box.left) / box.width));
        this.style();
      };
    });
    this.divider.addEventListener("pointerup", () => { this.divider.onpointermove = null; });
  }

  // Show a photo of this size, and labels if there are any.
  show(size, map) {
    this.size = size;
    this.map = map;
    this.canvas.hidden = !map;
    this.photo.hidden = false;
    this.fit();
    this.style();
  }

  clear() {
    this.map = this.size = this.at = null;
    this.photo.hidden = true;
    this.photo.removeAttribute("src");
    this.canvas.hidden = true;
    this.canvas.width = this.canvas.height = 1;
    this.leave();
    this.style();
  }

  paint(looks) {
    if (this.map) paint(this.canvas, this.map, looks);
  }

  style() {
    const after = Number(this.split.value), zoom = `${Math.round(100 * this.scale)} %`;
    this.canvas.style.opacity = this.opacity.value;
    this.canvas.style.clipPath = after ? `inset(0 0 0 ${after}%)` : "none";
    this.divider.hidden = !this.map || !after;
    this.divider.style.left = `${after}%`;
    this.divider.style.transform = `scaleX(${1 / this.scale})`;
    document.getElementById("zoom").value = zoom;
    this.frame.classList.toggle("zoomed", this.scale > 1);
  }

  // Place the picture into the frame: as large as fits, then enlarged, and never out of sight.
  place() {
    if (!this.size) return;
    const { clientWidth: width, clientHeight: height } = this.frame;
    const fit = Math.min(width / this.size.width, height / this.size.height);
    this.shown = { width: this.size.width * fit, height: this.size.height * fit };
    const keep = (offset, room, length) => length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset));
    this.left = keep(this.left, width, this.shown.width * this.scale);
    this.top = keep(this.top, height, this.shown.height * this.scale);
    this.layers.style.width = `${this.shown.width}px`;
    this.layers.style.height = `${this.shown.height}px`;
    this.layers.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
  }

  fit() {
    this.scale = 1;
    this.place();
    this.style();
  }

  zoom(by, spot) {
    if (!this.size) return;
    const around = spot || { x: this.frame.clientWidth / 2, y: this.frame.clientHeight / 2 };
    const scale = Math.min(12, Math.max(1, this.scale * by)); // 12 times at most
    this.left = around.x - (around.x - this.left) * scale / this.scale;
    this.top = around.y - (around.y - this.top) * scale / this.scale;
    this.scale = scale;
    this.place();
    this.style();
  }

  spot(event) {
    const box = this.frame.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  // The pixel of the labels at a spot of the frame, or null.
  pixel({ x, y }) {
    if (!this.map || !this.shown) return null;
    const column = Math.floor((x - this.left) / this.scale / this.shown.width * this.map.width);
    const row = Math.floor((y - this.top) / this.scale / this.shown.height * this.map.height);
    const inside = column >= 0 && row >= 0 && column < this.map.width && row < this.map.height;
    return inside ? { x: column, y: row, label: this.map.values[row * this.map.width + column] } : null;
  }

  point(spot) {
    const pixel = this.pixel(spot);
    const text = pixel && this.heard.hover(pixel.label);
    this.bubble.hidden = !text;
    if (!text) return pixel;
    this.bubble.replaceChildren(...text);
    const right = spot.x + this.bubble.offsetWidth + 24 > this.frame.clientWidth;
    this.bubble.style.left = `${right ? spot.x - this.bubble.offsetWidth - 12 : spot.x + 16}px`;
    this.bubble.style.top = `${Math.max(4, spot.y - 40)}px`;
    return pixel;
  }

  leave() {
    this.bubble.hidden = this.cross.hidden = true;
    this.heard.hover(-1);
  }

  down(event) {
    if (event.button || !this.size) return;
    this.cross.hidden = true;
    this.touches.set(event.pointerId, this.spot(event));
    this.moved = this.touches.size > 1;
    this.frame.setPointerCapture(event.pointerId);
  }

  move(event) {
    const spot = this.spot(event), last = this.touches.get(event.pointerId);
    if (!last) return void this.point(spot);
    if (this.touches.size === 2) {
      const [other] = [...this.touches].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = place => Math.hypot(place.x - other.x, place.y - other.y);
      this.zoom(apart(spot) / Math.max(1, apart(last)), other);
    } else if (this.moved || Math.hypot(spot.x - last.x, spot.y - last.y) > 5) {
      this.moved = true;
      if (this.scale === 1) return;
      this.left += spot.x - last.x;
      this.top += spot.y - last.y;
      this.place();
    } else return;
    this.touches.set(event.pointerId, spot);
  }

  up(event, real) {
    const began = this.touches.delete(event.pointerId);
    if (!real || !began || this.moved || this.touches.size) return;
    const pixel = this.point(this.spot(event));
    if (pixel) this.heard.pick(pixel);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.size) return;
    if (steps) {
      const { clientWidth: width, clientHeight: height } = this.frame;
      const from = this.at || { x: width / 2, y: height / 2 };
      this.at = { x: Math.min(width - 1, Math.max(0, from.x + 14 * steps[0])), y: Math.min(height - 1, Math.max(0, from.y + 14 * steps[1])) };
      this.cross.hidden = false;
      this.cross.style.left = `${this.at.x}px`;
      this.cross.style.top = `${this.at.y}px`;
      this.heard.say(this.point(this.at));
    } else if (event.key === "Enter" && this.at && this.pixel(this.at)) this.heard.pick(this.pixel(this.at));
    else if (event.key === "+" || event.key === "=") this.zoom(1.5, this.at);
    else if (event.key === "-") this.zoom(1 / 1.5, this.at);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
}
