// What is cut on the live page, or lies on something else: a list of texts.
(() => {
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the screen");
  for (const svg of document.querySelectorAll(".plot svg, .runs svg")) {
    const whole = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((each) => [each.textContent, each.getBoundingClientRect(), each.classList]);
    for (const [text, box] of texts) {
      if (box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 || box.bottom > whole.bottom + 1)
        wrong.push(`cut: ${text}`);
    }
    const ticks = texts.filter(([, , kinds]) => kinds.value === "tick");
    ticks.forEach(([text, a], at) => ticks.slice(at + 1).forEach(([other, b]) => {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3) wrong.push(`${text} on ${other}`);
    }));
  }
  for (const each of document.querySelectorAll("button, dt, dd, h1, h2, .legend li, header a, header span")) {
    if (each.checkVisibility() && !each.classList.contains("hidden") && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline")
      wrong.push(`too wide: ${each.textContent}`);
  }
  return wrong;
})()
