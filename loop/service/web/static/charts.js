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
      axisLine: { lineStyle: { color: colours.soft } },
      splitLine: { lineStyle: { color: colours.line } },
    }, more);
  }

  function frame(colours) {
    return {
      animation: false,
      backgroundColor: "transparent",
      textStyle: { color: colours.ink, fontFamily: "system-ui, sans-serif" },
      grid: { left: 64, right: 24, top: 40, bottom: 56 },
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
    options.xAxis = axis("saving in % of the cost → better", colours, { nameGap: 32 });
    options.yAxis = axis("lower bound of quality, points ↑ better", colours, { nameGap: 44 });
    options.series = [
      { name: "outside the limits", type: "scatter", data: data.infeasible, symbol: "emptyCircle",
        symbolSize: 5, itemStyle: { color: colours.soft, opacity: 0.5 } },
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
        symbol: "emptyCircle", symbolSize: 18, z: 5,
        itemStyle: { color: colours.canary, borderWidth: 3 } });
    }
    return options;
  }

  function band(data, colours) {
    const options = frame(colours);
    options.tooltip.trigger = "axis";
    options.tooltip.formatter = (items) => {
      const row = data.rows[items[0].dataIndex];
      return row.label + "\ndifference " + written(row.estimate) + " pt\n95 % band " +
        (row.low === null ? "open" : written(row.low)) + " to " +
        (row.high === null ? "open" : written(row.high)) + " pt";
    };
    options.legend.data = ["difference, canary − control", "95 % confidence sequence"];
    options.xAxis = axis(data.x_name, colours, {
      type: "category", nameGap: 32, scale: false, boundaryGap: false,
      data: data.rows.map((row) => row.x), splitLine: { show: false },
    });
    options.yAxis = axis("points of quality", colours, {
      nameGap: 44, min: data.floor, max: data.ceiling,
    });
    const edge = (pick) => data.rows.map(pick);
    const below = edge((row) => Math.max(row.low === null ? data.floor : row.low, data.floor));
    const above = edge((row) => Math.min(row.high === null ? data.ceiling : row.high, data.ceiling));
    options.series = [
      { name: "95 % confidence sequence", type: "line", stack: "band", stackStrategy: "all",
        data: below, symbol: "none", lineStyle: { opacity: 0 }, silent: true,
        itemStyle: { color: colours.stable } },
      { name: "95 % confidence sequence", type: "line", stack: "band", stackStrategy: "all",
        data: above.map((value, index) => value - below[index]), symbol: "none", silent: true,
        lineStyle: { opacity: 0 }, itemStyle: { color: colours.stable },
        areaStyle: { color: colours.stable, opacity: 0.2 } },
      { name: "difference, canary − control", type: "line", data: edge((row) => row.estimate),
        symbol: "none", lineStyle: { color: colours.canary, width: 2 },
        itemStyle: { color: colours.canary },
        markLine: { silent: true, symbol: "none",
          data: [
            { yAxis: 0, lineStyle: { color: colours.soft, type: "solid" },
              label: { formatter: "no difference", position: "insideEndTop", color: colours.soft } },
            { yAxis: data.margin, lineStyle: { color: colours.bad, type: "dashed", width: 2 },
              label: { formatter: "margin " + written(data.margin), color: colours.bad,
                position: "insideEndTop" } },
          ].concat(data.events.map((event) => ({
            xAxis: event.index, lineStyle: { color: colours.soft, type: "dotted" },
            label: { formatter: event.label, color: colours.soft, position: "insideStartTop" },
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
      chart.setOption(KINDS[place.dataset.chart](JSON.parse(source.textContent), colours), true);
    });
    drawn.forEach((chart, place) => {
      if (!place.isConnected) {
        chart.dispose();
        drawn.delete(place);
      }
    });
  }

  drawAll();
  addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.addEventListener("turnwise:theme", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);
})();
