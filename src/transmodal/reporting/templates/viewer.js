"use strict";
// Volumes of a case side by side, with linked crosshairs. NiiVue draws; what there is to draw stands beside each viewer as JSON and base64.
// Red where the synthetic image is too low (darker), blue where it is too high (brighter), as the Light_U-Net paper draws differences.
// Dark at zero, so that the eye goes to the errors.
const TOO_HIGH = { R: [0, 70, 170], G: [0, 150, 225], B: [0, 255, 255], A: [0, 255, 255], I: [0, 128, 255] };
const TOO_LOW = { R: [0, 255, 255], G: [0, 95, 205], B: [0, 60, 140], A: [0, 255, 255], I: [0, 128, 255] };
const SPREAD = { R: [0, 190, 255], G: [0, 80, 235], B: [0, 120, 120], A: [0, 255, 255], I: [0, 128, 255] };
const TURN = 10; // degrees
// What left-right, up-down and the pages move along, in each view.
const AXES = { all: [0, 1, 2], axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
const SLICES = { axial: 0, coronal: 1, sagittal: 2, all: 3, bone: 4 };

class Viewer {
  constructor(root) {
    this.root = root;
    this.told = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    this.place = this.told.start;
    this.panels = [];
  }

  async start() {
    const state = this.root.querySelector("[role='status']");
    if (!document.createElement("canvas").getContext("webgl2")) {
      state.textContent = "This browser draws no WebGL 2, which the viewer needs; the slices below show the same case.";
      return;
    }
    state.textContent = "Unpacking the volumes …";
    for (const panel of this.told.panels) this.panels.push(await this.makePanel(panel));
    this.listen();
    this.root.querySelector("form").hidden = false;
    state.textContent = "";
    this.redraw();
    this.moveTo(this.place);
    this.root.dataset.ready = "true";
  }

  file(name) {
    return this.root.querySelector(`script[data-file='${name}']`).textContent;
  }

  load(name, options) {
    return niivue.NVImage.loadFromBase64({ base64: this.file(name), name: `${name}.nii.gz`, ...options });
  }

  async makePanel(told) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const title = document.createElement("b");
    const value = document.createElement("span");
    const canvas = document.createElement("canvas");
    title.textContent = told.title;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application"); // so that keys reach it
    value.setAttribute("aria-live", "polite");
    canvas.setAttribute("aria-label", `${told.title}: slices through the crosshair, which arrow keys, page up and page down move; or its bone, which they turn`);
    caption.append(title, " ", value);
    const screen = document.createElement("div"); // NiiVue fills what a canvas lies in
    screen.append(canvas);
    figure.append(caption, screen);
    this.root.querySelector(".panels").append(figure);
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.2, 0.7], crosshairWidth: 1, isColorbar: false, isOrientCube: false,
      sagittalNoseLeft: true, dragAndDropEnabled: false, logLevel: "error", show3Dcrosshair: false, multiplanarShowRender: 0,
      keyDebounceTime: 0, isRadiologicalConvention: true, loadingText: "",
    });
    await nv.attachToCanvas(canvas);
    nv.addColormap("toohigh", TOO_HIGH);
    nv.addColormap("toolow", TOO_LOW);
    nv.addColormap("spread", SPREAD);
    const [low, high] = told.window;
    const image = await this.load(told.image, { colormap: "gray", cal_min: low, cal_max: high });
    nv.addVolume(image);
    const panel = { told, nv, image, figure, value };
    if (told.made && this.reference) {
      this.mask ??= await this.load("mask", {});
      panel.error = this.errorOf(image);
      nv.addVolume(panel.error);
    } else if (told.image === "reference") {
      this.reference = image;
    }
    if (told.uncertainty) {
      panel.spread = await this.load(told.uncertainty, { colormap: "spread", cal_min: 0, cal_max: this.told.errorLimit, opacity: 0 });
      nv.addVolume(panel.spread);
    }
    if (told.bone) {
      panel.bone = await niivue.NVMesh.readMesh(bytes(this.file(told.bone)), `${told.bone}.mz3`, nv.gl);
      nv.addMesh(panel.bone);
    }
    nv.onLocationChange = (found) => {
      if (this.moving) return;
      this.moveTo([...found.mm].slice(0, 3));
    };
    nv.onAzimuthElevationChange = (azimuth, elevation) => this.turnTo(azimuth, elevation);
    canvas.addEventListener("keydown", (event) => this.press(event), true);
    return panel;
  }

  // What is computed here need not be in the page.
  errorOf(image) {
    const error = image.clone();
    const made = values(image), real = values(this.reference), inside = this.mask.img;
    error.img = new Float32Array(made.length).map((_, k) => (inside[k] ? made[k] - real[k] : 0));
    Object.assign(error.hdr, { datatypeCode: 16, numBitsPerVoxel: 32, scl_slope: 1, scl_inter: 0 });
    Object.assign(error, { colormap: "toohigh", colormapNegative: "toolow", colormapType: 1, trustCalMinMax: true, opacity: 0 });
    this.scale(error, this.told.errorLimit);
    return error;
  }

  scale(error, limit) {
    Object.assign(error, { cal_min: limit / 50, cal_max: limit, cal_minNeg: -limit / 50, cal_maxNeg: -limit });
  }

  listen() {
    const form = this.root.querySelector("form");
    form.addEventListener("input", () => this.redraw());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.axes = ["x", "y", "z"].map((name, axis) => {
      const slider = form.elements[name];
      Object.assign(slider, { min: this.told.low[axis], max: this.told.high[axis], step: this.told.step });
      slider.addEventListener("input", (event) => {
        event.stopPropagation();
        this.moveTo(this.place.map((old, k) => (k === axis ? slider.valueAsNumber : old)));
      });
      return slider;
    });
  }

  // Arrow keys move the crosshair by a voxel, on the screen as they point, or turn the bone.
  press(event) {
    const { radiological, view } = this.root.querySelector("form").elements;
    const turn = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowDown: [0, -TURN], ArrowUp: [0, TURN] }[event.key];
    if (view.value === "bone") {
      if (!turn) return;
      event.preventDefault();
      event.stopPropagation();
      const { renderAzimuth: azimuth, renderElevation: elevation } = this.panels[0].nv.scene;
      this.turnTo(azimuth + turn[0], elevation + turn[1]);
      return;
    }
    const [across, along, through] = AXES[view.value];
    // The nose points to the left in sagittal slices, and the patient's right lies there in radiological ones.
    const right = across === 1 || radiological.checked ? -1 : 1;
    const step = {
      ArrowLeft: [across, -right], ArrowRight: [across, right], ArrowDown: [along, -1], ArrowUp: [along, 1],
      PageDown: [through, -1], PageUp: [through, 1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.moveTo(this.place.map((old, k) => (k === step[0] ? old + step[1] * this.told.step : old)));
  }

  text(value) {
    const digits = Math.max(0, Math.ceil(-Math.log10(this.told.valueStep)));
    return value.toFixed(digits).replace("-", "\u2212");
  }

  turnTo(azimuth, elevation) {
    if (this.moving) return;
    this.moving = true;
    for (const { nv } of this.panels) nv.setRenderAzimuthElevation(azimuth, elevation);
    this.moving = false;
  }

  moveTo(place) {
    this.place = place.map((value, k) => Math.min(Math.max(value, this.told.low[k]), this.told.high[k]));
    this.moving = true;
    for (const { nv, told, image, error, spread, value } of this.panels) {
      nv.scene.crosshairPos = nv.mm2frac(this.place);
      nv.drawScene();
      const read = (volume) => valueAt(volume, this.place);
      const parts = [`${this.text(read(image))} ${told.unit}`];
      if (error) parts.push(`error ${read(error) > 0 ? "+" : ""}${this.text(read(error))}`);
      if (spread) parts.push(`SD ${this.text(read(spread))}`);
      value.textContent = parts.join(", ");
    }
    this.moving = false;
    const names = [["L", "R"], ["P", "A"], ["I", "S"]];
    this.axes?.forEach((slider, k) => {
      slider.value = this.place[k];
      const words = `${Math.abs(this.place[k]).toFixed(0)} mm ${names[k][this.place[k] < 0 ? 0 : 1]}`;
      slider.setAttribute("aria-valuetext", words);
      slider.nextElementSibling.textContent = words;
    });
  }

  redraw() {
    const { elements } = this.root.querySelector("form");
    const show = elements.show.value, view = elements.view.value, solid = view === "bone";
    const low = elements.low.valueAsNumber, high = Math.max(elements.high.valueAsNumber, low + this.told.valueStep), limit = elements.limit?.valueAsNumber;
    for (const slider of [elements.low, elements.high, elements.limit]) {
      if (slider) slider.nextElementSibling.textContent = `${slider.value} ${this.told.unit}`;
    }
    this.root.dataset.show = show;
    this.root.dataset.view = view;
    for (const { nv, told, image, error, spread, bone, figure } of this.panels) {
      figure.hidden = solid && !bone;
      if (told.image === "reference" || told.made) Object.assign(image, { cal_min: low, cal_max: high });
      const covered = (error && show === "error") || (spread && show === "uncertainty");
      image.opacity = solid || covered ? 0 : 1;
      if (error) {
        error.opacity = !solid && show === "error" ? 1 : 0;
        this.scale(error, limit);
      }
      if (spread) {
        spread.opacity = !solid && show === "uncertainty" ? 1 : 0;
        spread.cal_max = limit;
      }
      if (bone) bone.visible = solid;
      nv.setRadiologicalConvention(elements.radiological.checked);
      nv.setSliceType(SLICES[view]);
      nv.updateGLVolume();
    }
  }
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

function values(image) {
  const { scl_slope: slope, scl_inter: shift } = image.hdr;
  return Float32Array.from(image.img, (stored) => stored * slope + shift);
}

function valueAt(volume, place) {
  return volume.getValue(...volume.mm2vox(place));
}

for (const root of document.querySelectorAll(".viewer")) {
  new Viewer(root).start().catch((error) => {
    root.querySelector("[role='status']").textContent = `The viewer could not start: ${error.message}`;
    console.error(error);
  });
}
