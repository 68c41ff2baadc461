// Returns the pairs of texts that overlap. Texts that are clipped (in the list of events, hidden visually) do not count.
const rects = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  const element = node.parentElement;
  if (!node.data.trim() || !element.checkVisibility() || element.closest(".scroll, .visually-hidden, .skip, thead, script, noscript")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const rect of range.getClientRects()) rects.push([node, rect]);
}
const found = [];
rects.forEach(([one, a], i) => {
  for (const [other, b] of rects.slice(i + 1)) {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (one !== other && width > 1 && height > 2) found.push(`${one.data.trim()} / ${other.data.trim()}`);
  }
});
return found;
