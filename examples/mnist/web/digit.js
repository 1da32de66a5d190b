// This file turns a drawing into what MNIST's makers turned their scans into:
// the ink cropped to its bounding box, scaled into 20x20 with its proportions
// kept, and put into 28x28 with its centre of mass in the middle.

export const side = 28;
const box = 20;

// toDigit takes the ink of a drawing, a byte of each of its width*height
// pixels, 0 for none, and returns 784 numbers from 0 to 1. A drawing without
// ink is null.
export function toDigit(ink, width, height) {
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] > 32) {
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
  }
  if (right < 0) return null;

  // Each small pixel is the mean of the ink that lies under it.
  const w = right - left + 1, h = bottom - top + 1;
  const scale = box / Math.max(w, h);
  const cols = Math.max(1, Math.round(w * scale)), rows = Math.max(1, Math.round(h * scale));
  const small = new Float64Array(cols * rows);
  let mass = 0, mx = 0, my = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const v = mean(ink, width, left + c * w / cols, left + (c + 1) * w / cols,
        top + r * h / rows, top + (r + 1) * h / rows) / 255;
      small[r * cols + c] = v;
      mass += v;
      mx += v * (c + .5);
      my += v * (r + .5);
    }
  }

  const dx = clamp(Math.round(side / 2 - mx / mass), 0, side - cols);
  const dy = clamp(Math.round(side / 2 - my / mass), 0, side - rows);
  const digit = new Array(side * side).fill(0);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      digit[(r + dy) * side + c + dx] = Math.round(small[r * cols + c] * 1000) / 1000;
    }
  }
  return digit;
}

// mean returns the mean ink from x0 to x1 and y0 to y1, which may cut pixels.
function mean(ink, width, x0, x1, y0, y1) {
  let sum = 0, area = 0;
  for (let y = Math.floor(y0); y < y1; y++) {
    const part = Math.min(y + 1, y1) - Math.max(y, y0);
    for (let x = Math.floor(x0); x < x1; x++) {
      const a = part * (Math.min(x + 1, x1) - Math.max(x, x0));
      sum += a * (ink[y * width + x] || 0);
      area += a;
    }
  }
  return sum / area;
}

function clamp(v, lo, hi) {
  return Math.max(lo, Math.min(hi, v));
}
