"use strict";
// Draws each <div data-chart> from the JSON beside it. Colours come from the style sheet, so that
// light and dark agree with the page. Tooltips are drawn on the canvas: no HTML from data.
(function () {
  const drawn = new Map();

  function colour(name) {
    const probe = document.createElement("span");
    probe.className = "probe-" + name;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  function palette() {
    return {
      ink: colour("ink"), soft: colour("soft"), line: colour("line"), page: colour("page"),
      stable: colour("stable"), canary: colour("canary"), bad: colour("bad"),
    };
  }

  function axis(name, colours, more) {
    return Object.assign({
      type: "value", name: name, nameLocation: "middle", scale: true,
      nameTextStyle: { color: colours.soft },
      axisLabel: { color: colours.soft },
      axisLine: { onZero: false, lineStyle: { color: colours.soft } },
      splitLine: { lineStyle: { color: colours.line } },
    }, more);
  }

  function frame(colours) {
    return {
      animation: false,
      backgroundColor: "transparent",
      textStyle: { color: colours.ink, fontFamily: "system-ui, sans-serif" },
      grid: { left: 64, right: 24, top: innerWidth < 640 ? 72 : 40, bottom: 56 },
      legend: { top: 0, left: 0, textStyle: { color: colours.ink }, inactiveColor: colours.soft },
      tooltip: {
        renderMode: "richText", confine: true,
        backgroundColor: colours.page, borderColor: colours.soft,
        textStyle: { color: colours.ink },
      },
    };
  }

  const written = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(1);

  function trials(data, colours) {
    const options = frame(colours);
    options.tooltip.formatter = (item) =>
      Array.isArray(item.value)
        ? "trial " + item.value[2] + "\nsaving " + written(item.value[0]) +
          " %\nquality at least " + written(item.value[1]) + " pt"
        : item.name;
    options.legend.data = [
      { name: "outside the limits", icon: "diamond",
        itemStyle: { color: "transparent", borderColor: colours.soft, borderWidth: 1.5 } },
      "within the limits", "front",
      { name: "found",
        itemStyle: { color: "transparent", borderColor: colours.canary, borderWidth: 2 } },
    ];
    options.xAxis = axis("saving in % of the cost → better", colours, { nameGap: 32 });
    options.yAxis = axis("lower bound of quality, points ↑ better", colours, { nameGap: 44 });
    options.series = [
      { name: "outside the limits", type: "scatter", data: data.infeasible, symbol: "diamond",
        symbolSize: 7, itemStyle: { color: "transparent", borderColor: colours.soft } },
      { name: "within the limits", type: "scatter", data: data.feasible, symbolSize: 6,
        itemStyle: { color: colours.stable, opacity: 0.5 } },
      { name: "front", type: "line", step: "start", data: data.front, symbol: "circle",
        symbolSize: 7, lineStyle: { color: colours.stable, width: 2 },
        itemStyle: { color: colours.stable },
        markLine: { silent: true, symbol: "none", label: { show: false },
          lineStyle: { color: colours.soft, type: "dashed" }, data: [{ yAxis: 0 }] } },
    ];
    if (data.found) {
      options.series.push({ name: "found", type: "scatter", data: [data.found],
        symbol: "circle", symbolSize: 18, z: 5,
        itemStyle: { color: "transparent", borderColor: colours.canary, borderWidth: 3 } });
    }
    return options;
  }

  function band(data, colours) {
    const options = frame(colours);
    const rows = data.rows;
    const bandName = data.level + " confidence sequence";
    const lineName = "difference, canary − control";
    const bound = (value) => (value === null ? "open" : written(value));
    const low = (row) => (row.low === null ? data.floor : Math.max(row.low, data.floor));
    const high = (row) => (row.high === null ? data.ceiling : Math.min(row.high, data.ceiling));
    const line = (value, text, look) => ({
      yAxis: value, lineStyle: Object.assign({ width: 1 }, look),
      label: { formatter: text, color: look.color, position: "insideEndTop" },
    });
    options.tooltip.trigger = "axis";
    options.tooltip.formatter = (items) => {
      const row = rows[items[0].dataIndex];
      return "after " + row.x + " scored sessions\ndifference " + bound(row.estimate) + " pt\n" +
        data.level + " band " + bound(row.low) + " to " + bound(row.high) + " pt";
    };
    options.legend.data = [lineName, bandName];
    options.xAxis = axis("scored sessions of canary and control", colours, {
      type: "category", nameGap: 32, boundaryGap: false,
      data: rows.map((row) => row.x), splitLine: { show: false },
    });
    options.yAxis = axis("points of quality", colours, {
      nameGap: 44, min: data.floor, max: data.ceiling,
    });
    options.series = [
      { name: bandName, type: "line", stack: "band", stackStrategy: "all", silent: true,
        data: rows.map(low), symbol: "none", lineStyle: { opacity: 0 },
        itemStyle: { color: colours.stable } },
      { name: bandName, type: "line", stack: "band", stackStrategy: "all", silent: true,
        data: rows.map((row) => high(row) - low(row)), symbol: "none",
        lineStyle: { opacity: 0 }, itemStyle: { color: colours.stable },
        areaStyle: { color: colours.stable, opacity: 0.2 } },
      { name: lineName, type: "line", data: rows.map((row) => row.estimate), symbol: "none",
        lineStyle: { color: colours.canary, width: 2 }, itemStyle: { color: colours.canary },
        markLine: { silent: true, symbol: "none", data: [
          line(0, "no difference", { color: colours.soft, type: "solid" }),
          line(data.margin, "margin " + written(data.margin),
            { color: colours.bad, type: "dashed", width: 2 }),
        ].concat(data.events.map((event) => ({
          xAxis: event.index, lineStyle: { color: colours.soft, type: "dotted" },
          label: { formatter: event.label, color: colours.soft, position: "end", rotate: 0 },
        }))) } },
    ];
    return options;
  }

  const KINDS = { trials: trials, band: band };

  function drawAll() {
    const colours = palette();
    document.querySelectorAll("[data-chart]").forEach((place) => {
      const source = document.getElementById(place.id + "-data");
      if (!source) return;
      let chart = drawn.get(place);
      if (!chart) {
        chart = echarts.init(place, null, { renderer: "canvas" });
        drawn.set(place, chart);
      }
      const data = JSON.parse(source.textContent);
      place.setAttribute("aria-label", data.finding);
      chart.setOption(KINDS[data.kind](data, colours), true);
    });
    drawn.forEach((chart, place) => {
      if (!place.isConnected) {
        chart.dispose();
        drawn.delete(place);
      }
    });
  }

  drawAll();
  addEventListener("resize", () => {
    drawn.forEach((chart) => chart.resize());
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.addEventListener("turnwise:theme", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);
})();
