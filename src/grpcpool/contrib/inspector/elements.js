// Creates and updates elements. All data is inserted as text.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  return element;
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return set(element, attributes);
}

export const draw = (tag, attributes = {}) => set(document.createElementNS(SVG, tag), attributes);

// Makes the children of `parent` match `items`: one updated element for each item, in order. Obsolete elements are
// removed first, so that most others are already in place. The one that has the focus is never moved, because it would
// lose the focus: those before it are moved instead.
export function syncChildren(parent, items, key, create, update) {
  const wanted = new Set(items.map((item) => String(key(item))));
  const existing = new Map();
  for (const child of [...parent.children]) {
    if (!child.dataset.key) continue;
    if (wanted.has(child.dataset.key)) existing.set(child.dataset.key, child);
    else child.remove();
  }
  let place = existing.values().next().value ?? null;
  for (const item of items) {
    const name = String(key(item));
    let element = existing.get(name);
    if (!element) {
      element = create(item);
      element.dataset.key = name;
    }
    if (element.contains(document.activeElement)) {
      while (place && place !== element) {
        const next = place.nextElementSibling;
        parent.append(place);
        place = next;
      }
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
}
