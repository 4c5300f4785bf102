"use strict";
// Draws what the page holds. Names from outside reach the document as text (textContent) only.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const wide = matchMedia("(prefers-color-scheme: dark)");
  let pictures = null;
  let printing = false;

  const make = (name, options = {}, ...inside) => {
    const { data, ...rest } = options;
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(rest)) {
      if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    Object.assign(made.dataset, data || {});
    made.append(...inside);
    return made;
  };
  const say = (words) => {
    const place = document.getElementById("said");
    place.textContent = words;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { place.textContent = ""; }, 2500);
  };
  const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)}`);
  const between = ([value, low, high]) => (low === null || high === null ? percent(value)
    : `${percent(value)} [${percent(low)}, ${percent(high)}]`);

  // Light and dark

  const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : wide.matches);
  const button = document.getElementById("theme");
  const showTheme = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    all(".plot[data-drawn]").forEach(draw);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  wide.addEventListener("change", showTheme);

  // Figures

  const faded = (colour) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return `rgba(${red},${green},${blue},${isDark() ? 0.16 : 0.1})`;
  };
  const coloured = (trace) => {
    const colour = facts.colours[isDark() ? "dark" : "light"][trace.meta.colour];
    const found = { ...trace, line: { ...trace.line, color: colour } };
    if (trace.marker) found.marker = { ...trace.marker, color: colour };
    if (trace.fillcolor) found.fillcolor = faded(colour);
    return found;
  };
  const value = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const laid = (layout, box) => {
    const [ink, line, ground] = printing ? ["#000000", "#bbbbbb", "#ffffff"] : ["--ink", "--line", "--ground"].map(value);
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
    return {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 50, r: 12, t: 8, b: 40 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: box.clientWidth < 420 ? 10 : 12 } },
      hovermode: "closest",
      hoverlabel: { bgcolor: ground, bordercolor: line, font: { color: ink }, align: "left" },
      dragmode: box.clientWidth < 420 ? false : "zoom",
    };
  };
  function draw(figure) {
    const plot = facts.plots[Number(figure.dataset.plot)];
    const pressed = figure.querySelector("[data-choice][aria-pressed=true]");
    const shown = plot[pressed ? pressed.dataset.choice : ""] || Object.values(plot)[0];
    const box = figure.querySelector(".canvas");
    const options = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
    figure.dataset.drawn = "";
    Plotly.react(box, shown.data.map(coloured), laid(shown.layout, box), options);
  }
  all(".choices").forEach((group) => group.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen) return;
    all("button", group).forEach((each) => each.setAttribute("aria-pressed", String(each === chosen)));
    draw(group.closest(".plot"));
  }));

  // Tables

  const sortable = (table) => all("thead th", table).forEach((head, column) => {
    if (!head.querySelector("button")) return;
    head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
      };
      const order = (a, b) => {
        const [one, other] = [key(a), key(b)];
        if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1; // what is not known stands last
        const found = typeof one === "number" ? one - other : one.localeCompare(other);
        return down ? -found : found;
      };
      body.append(...[...body.rows].sort(order));
    });
  });
  const table = (title, heads, rows) => {
    const made = make("table", { className: "sortable" }, make("caption", { textContent: title }));
    const cells = heads.map((words, at) => make("th", { scope: "col", className: at ? "number" : "" },
      make("button", { type: "button", textContent: words })));
    made.append(make("thead", {}, make("tr", {}, ...cells)));
    made.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(([words, number, ...more], at) =>
      make("td", { className: at ? "number" : "", data: number === null || number === undefined ? {} : { v: number } },
        ...more, make("bdi", { textContent: words })))))));
    sortable(made);
    return make("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": title }, made);
  };
  all("table.sortable").forEach(sortable);

  const copied = async (words) => {
    try {
      await navigator.clipboard.writeText(words);
      return true;
    } catch (refused) {
      const held = make("textarea", { value: words });
      document.body.append(held);
      held.select();
      const done = document.execCommand("copy");
      held.remove();
      return done;
    }
  };
  document.addEventListener("click", async (event) => {
    const pressed = event.target.closest("button.copy");
    if (!pressed) return;
    const done = await copied(pressed.dataset.command);
    pressed.focus();
    say(done ? "Copied the command." : `Copy it by hand: ${pressed.dataset.command}`);
  });

  // Subjects

  const tabs = all("[role=tab]");
  const choose = (tab) => tabs.forEach((each) => {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = each !== tab;
  });
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const ends = { Home: 0, End: tabs.length - 1 };
      if (!(event.key in steps) && !(event.key in ends)) return;
      event.preventDefault();
      const next = tabs[event.key in ends ? ends[event.key] : (at + steps[event.key] + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  });

  // One attack

  const named = (palette, index) => (palette && palette.names[index] !== undefined ? palette.names[index] : `class ${index}`);
  const colourOf = (palette, index) => {
    if (palette && palette.colours[index]) return palette.colours[index];
    const turn = (index * 137.508) % 360; // the golden angle: neighbours are far apart
    return [0, 8, 4].map((shift) => {
      const k = (shift + turn / 30) % 12;
      return Math.round(255 * (0.55 - 0.4 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    });
  };
  const swatch = (colour) => {
    const made = make("span", { className: "swatch", "aria-hidden": "true" });
    made.style.background = `rgb(${colour.join(",")})`;
    return made;
  };

  const drawClasses = (place, lens, palette, words) => {
    const rows = lens.classes.map((each) => {
      const [was, is] = [each.before[0], each.after[0]];
      const drop = was === null || is === null ? null : is - was;
      const bar = make("span", { className: "drop", "aria-hidden": "true" }, make("i"), make("b"));
      bar.children[0].style.width = `${100 * (was || 0)}%`;
      bar.children[1].style.width = `${100 * (is || 0)}%`;
      const known = palette ? palette.names.indexOf(each.name) : -1;
      return [[each.name, undefined, ...(known < 0 ? [] : [swatch(colourOf(palette, known))])],
        [each.pixels.toLocaleString("en"), each.pixels], [between(each.before), was], [between(each.after), is],
        [drop === null ? "–" : `${drop > 0 ? "+" : ""}${(100 * drop).toFixed(1)}`, drop, bar],
        [`${percent(each.accuracy[0][0])} → ${percent(each.accuracy[1][0])}`, each.accuracy[1][0]],
        ...(words.asked ? [[`${percent(each.dice[0][0])} → ${percent(each.dice[1][0])}`, each.dice[1][0]]] : [])];
    });
    place.replaceChildren(table("IoU unattacked and after this attack, per cent [95 % interval over images]; bars: blue is left, orange is lost",
      [words.part, "pixels", "IoU before", "IoU after", "change", words.accuracy, ...(words.asked ? ["Dice"] : [])], rows));
  };

  const drawConfusion = (place, lens, words) => {
    const found = lens.confusion;
    place.closest(".confused").hidden = !found;
    if (!found) return;
    const sums = { before: found.before.map((row) => row.reduce((a, b) => a + b, 0)), after: found.after.map((row) => row.reduce((a, b) => a + b, 0)) };
    const share = (when, row, column) => (sums[when][row] ? found[when][row][column] / sums[when][row] : 0);
    const rows = found.names.map((name, row) => {
      const cells = found.names.map((other, column) => {
        const part = share("after", row, column);
        const cell = make("td", { textContent: part < 0.005 ? "" : (100 * part).toFixed(0), className: row === column ? "same" : "",
          title: `${name} → ${other}: ${percent(part)} % (unattacked ${percent(share("before", row, column))} %), ${found.after[row][column].toLocaleString("en")} pixels` });
        cell.style.background = `rgba(var(${row === column ? "--heat" : "--wrong"}), ${0.85 * Math.sqrt(part)})`;
        if (part > 0.45) cell.style.color = isDark() ? "#000" : row === column ? "#fff" : "#000";
        return cell;
      });
      return make("tr", {}, make("th", { scope: "row" }, make("bdi", { textContent: name })), ...cells);
    });
    const heads = found.names.map((name) => make("th", { scope: "col" }, make("bdi", { textContent: name })));
    const heat = make("table", { className: "heat" },
      make("caption", { textContent: `Row: the ${words.label}. Column: what is seen under attack. Per cent of the row's pixels; outlined: the same.` }),
      make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", {}, ...rows));
    const flows = found.names.flatMap((name, row) => found.names.map((other, column) => ({ name, other, row, column,
      gain: found.after[row][column] - found.before[row][column] }))).filter((each) => each.row !== each.column && each.gain > 0)
      .sort((a, b) => b.gain - a.gain).slice(0, 3);
    const told = flows.map((each) => make("li", {}, make("bdi", { textContent: each.name }), " → ", make("bdi", { textContent: each.other }),
      `: ${percent(share("before", each.row, each.column))} % → ${percent(share("after", each.row, each.column))} % of its pixels`));
    place.replaceChildren(make("ul", {}, ...told),
      make("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": "What becomes what" }, heat));
  };

  const drawImages = (place, lens, words) => {
    const rows = lens.images.map(([name, was, is]) => [[name], [percent(was), was], [percent(is), is],
      [was === null || is === null ? "–" : ((is - was) * 100).toFixed(1), was === null || is === null ? null : is - was]]);
    place.replaceChildren(table(`Each image, per cent of pixels ${words.left}; those that lose most first`,
      ["image", "unattacked", "after", "change"], rows));
  };

  // Images

  const source = (key) => {
    pictures = pictures || JSON.parse(document.getElementById("pictures").textContent);
    return pictures[key];
  };
  const loaded = async (key) => {
    const image = new Image();
    image.src = source(key);
    await image.decode();
    return image;
  };
  const read = async (key, width, height) => {
    const image = await loaded(key);
    const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, width, height).data;
  };
  const indices = async (key, width, height) => {
    const bytes = await read(key, width, height);
    return Int16Array.from({ length: width * height }, (_, at) => ((bytes[4 * at] | (bytes[4 * at + 1] << 8)) << 16) >> 16);
  };
  const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const heat = (share) => {
    const at = Math.min(3, Math.floor(4 * share));
    return HEAT[at].map((from, k) => from + (HEAT[at + 1][k] - from) * (4 * share - at));
  };
  const CHANGES = [[213, 94, 0], [204, 121, 167], [0, 114, 178]];

  const drawGallery = (place, lens, palette, words) => {
    place.replaceChildren();
    if (!lens.shots.length) {
      place.append(make("p", { className: "absent", textContent: "No images of this attack are in the gallery." }));
      return;
    }
    const strip = make("div", { className: "strip", role: "group", "aria-label": "Images" });
    const viewer = make("div", { className: "viewer" });
    lens.shots.forEach((shot, at) => {
      const chosen = make("button", { type: "button", "aria-pressed": String(!at) },
        make("img", { src: source(shot.clean), alt: "" }), make("b", {}, make("bdi", { textContent: shot.image })),
        `${shot.rank === "most" ? "least left" : "most left"}: ${percent(shot.shares[0])} → ${percent(shot.shares[1])} %`);
      chosen.addEventListener("click", () => {
        all("button", strip).forEach((each) => each.setAttribute("aria-pressed", String(each === chosen)));
        look(viewer, shot, palette, words);
      });
      strip.append(chosen);
    });
    place.append(strip, viewer);
    look(viewer, lens.shots[0], palette, words);
  };

  const look = async (viewer, shot, palette, words) => {
    const { width, height } = shot;
    const ticket = viewer.ticket = {};
    const [clean, attacked, delta, label, before, after] = await Promise.all([loaded(shot.clean), loaded(shot.adversarial),
      loaded(shot.delta), ...[shot.label, shot.before, shot.after].map((key) => indices(key, width, height))]);
    const radius = shot.radius ? await read(shot.radius, width, height) : null;
    if (viewer.ticket !== ticket) return; // another image was chosen meanwhile
    const empty = palette ? palette.void : -1;

    const canvas = make("canvas", { width, height, tabIndex: 0, role: "img" });
    canvas.setAttribute("aria-label", `${shot.image}: unattacked at the left of the line, attacked at the right. Arrow keys move the point that is told below.`);
    const cut = make("span", { className: "cut" });
    const cross = make("span", { className: "cross", hidden: true });
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, className: "slide" });
    slider.setAttribute("aria-label", "Line between unattacked and attacked, per cent from the left");
    const opacity = make("input", { type: "range", min: 0, max: 100, value: 70, className: "opacity" });
    opacity.setAttribute("aria-label", "Opacity of what is laid over, per cent");
    const readout = make("p", { className: "readout", role: "status" }, "Point at a pixel, or focus the image and use the arrow keys.");
    const list = make("ul", { className: "legend" });
    const modes = { pair: "predictions, before | after", label: words.label, before: "prediction before", after: "prediction after",
      changed: "changed pixels", ...(radius ? { radius: "radius map" } : {}), delta: `perturbation ×${shot.factor}`, none: "nothing" };
    let mode = "pair";
    const over = make("canvas", { width, height });

    const paint = () => {
      const context = canvas.getContext("2d");
      const at = Math.round(width * slider.value / 100);
      context.globalAlpha = 1;
      context.drawImage(clean, 0, 0, width, height);
      if (at < width) context.drawImage(attacked, at, 0, width - at, height, at, 0, width - at, height);
      cut.style.left = `${slider.value}%`;
      lay(at);
      context.globalAlpha = opacity.value / 100;
      context.drawImage(over, 0, 0);
    };
    const colourAt = (place, x, at) => {
      const classes = { label, before, after, pair: x < at ? before : after }[mode];
      if (classes) return classes[place] === empty ? null : colourOf(palette, classes[place]);
      if (mode === "radius") return heat(radius[4 * place] / shot.steps);
      if (mode !== "changed" || label[place] === empty || before[place] === after[place]) return null;
      const [was, is] = [before[place] === label[place], after[place] === label[place]];
      return CHANGES[was ? 0 : is ? 2 : 1];
    };
    const lay = (at) => {
      const context = over.getContext("2d");
      context.clearRect(0, 0, width, height);
      if (mode === "delta") context.drawImage(delta, 0, 0, width, height);
      if (mode === "delta" || mode === "none") return;
      const image = context.createImageData(width, height);
      for (let place = 0; place < width * height; place += 1) {
        const colour = colourAt(place, place % width, at);
        if (colour) image.data.set([...colour, 255], 4 * place);
      }
      context.putImageData(image, 0, 0);
    };
    const explain = () => {
      list.replaceChildren();
      if (mode === "changed") {
        words.changed.forEach((told, k) => list.append(make("li", {}, swatch(CHANGES[k]), told)));
      } else if (mode === "radius") {
        list.append(make("li", { className: "scale" }, "0", make("i"), `${shot.top.toPrecision(3)} (small is easily turned)`));
        list.firstChild.style.width = "100%";
      } else if (mode === "delta") {
        list.append(make("li", { textContent: `Grey is no change; magnified ${shot.factor} times. Largest change of a value: ${(255 * shot.length).toFixed(2)}/255.` }));
      } else if (mode !== "none") {
        const counts = new Map();
        ({ label: [label], before: [before], after: [after] }[mode] || [before, after]).forEach((map) => map.forEach((index) => {
          if (index !== empty) counts.set(index, (counts.get(index) || 0) + 1);
        }));
        [...counts].sort((a, b) => b[1] - a[1]).slice(0, 16).forEach(([index]) => list.append(make("li", {}, swatch(colourOf(palette, index)),
          make("bdi", { textContent: named(palette, index) }))));
        if (mode === "label" && label.includes(empty)) list.append(make("li", { textContent: "bare: void, not counted" }));
      }
    };
    let [column, row] = [Math.floor(width / 2), Math.floor(height / 2)];
    const tell = (x, y) => {
      column = Math.max(0, Math.min(width - 1, x));
      row = Math.max(0, Math.min(height - 1, y));
      const place = row * width + column;
      const said = label[place] === empty ? "void" : named(palette, label[place]);
      const parts = [`x ${Math.round(column * shot.scale)}, y ${Math.round(row * shot.scale)}`, `${words.label}: ${said}`,
        `before: ${named(palette, before[place])}`, `after: ${named(palette, after[place])}`];
      if (radius) parts.push(`radius: ${(shot.top * radius[4 * place] / shot.steps).toPrecision(2)}`);
      readout.replaceChildren(...parts.flatMap((each, k) => [k ? " · " : "", make("bdi", { textContent: each })]));
      cross.hidden = false;
      cross.style.left = `${100 * (column + 0.5) / width}%`;
      cross.style.top = `${100 * (row + 0.5) / height}%`;
    };
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      tell(Math.floor(width * (event.clientX - box.left) / box.width), Math.floor(height * (event.clientY - box.top) / box.height));
    });
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 1;
      const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
      if (!move) return;
      event.preventDefault();
      tell(column + move[0], row + move[1]);
    });
    slider.addEventListener("input", paint);
    opacity.addEventListener("input", paint);
    const choices = make("fieldset", {}, make("legend", { textContent: "Laid over" }));
    for (const [key, told] of Object.entries(modes)) {
      const chosen = make("button", { type: "button", textContent: told, "aria-pressed": String(key === mode), data: { mode: key } });
      chosen.addEventListener("click", () => {
        mode = key;
        all("button", choices).forEach((each) => each.setAttribute("aria-pressed", String(each === chosen)));
        paint();
        explain();
      });
      choices.append(chosen);
    }
    const stage = make("div", { className: "stage" }, canvas, cut, cross);
    const sides = make("div", { className: "sides" }, make("span", { textContent: `unattacked: ${percent(shot.shares[0])} %` }),
      make("span", { textContent: `attacked: ${percent(shot.shares[1])} % ${words.left}` }));
    viewer.replaceChildren(make("div", {}, stage, slider, sides, readout),
      make("div", {}, choices, make("label", {}, "opacity ", opacity), list));
    paint();
    explain();
  };

  const shown = new Map();
  const drawLens = (section) => {
    const at = Number(section.closest("[data-subject]").dataset.subject);
    const chosen = section.querySelector("select").value;
    const [lens, palette, words] = [facts.subjects[at][Number(chosen)], facts.palettes[at], facts.words[at]];
    if (!lens || shown.get(section) === chosen) return;
    shown.set(section, chosen);
    drawGallery(section.querySelector(".gallery"), lens, palette, words);
    drawClasses(section.querySelector(".classes"), lens, palette, words);
    drawConfusion(section.querySelector(".confusion"), lens, words);
    const every = section.querySelector(".every");
    every.hidden = !lens.images.length;
    section.querySelector(".images").replaceChildren();
    if (every.open) drawImages(section.querySelector(".images"), lens, words);
    every.ontoggle = () => every.open && drawImages(section.querySelector(".images"), lens, words);
  };
  all(".lens select").forEach((select) => select.addEventListener("change", () => drawLens(select.closest(".lens"))));

  // What is not looked at yet is not drawn yet

  const near = new IntersectionObserver((entries) => entries.filter((each) => each.isIntersecting).forEach((each) => {
    near.unobserve(each.target);
    if (each.target.matches(".plot")) draw(each.target);
    else drawLens(each.target);
  }), { rootMargin: "600px" });
  all(".plot, .lens").forEach((each) => near.observe(each));
  addEventListener("beforeprint", () => {
    printing = true;
    all(".plot").forEach(draw);
    all(".lens").forEach(drawLens);
  });
  addEventListener("afterprint", () => {
    printing = false;
    showTheme();
  });
  showTheme();
})();
