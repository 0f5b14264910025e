(function () {
  "use strict";
  var calm = { responsive: true, displaylogo: false, displayModeBar: false, showTips: false };
  function draw(figure) {
    var told = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    var place = figure.querySelector(".live");
    if (place.clientWidth < 420 || window.innerWidth < 520) {
      told.layout.font.size = 11;
      told.layout.margin.l = Math.min(told.layout.margin.l, 110);
    }
    figure.classList.add("drawn");
    Plotly.newPlot(place, told.data, told.layout, calm).then(function () {
      var sheet = figure.querySelector("img.sheet");
      if (sheet) { peek(place, sheet); }
    }, function () {
      figure.classList.remove("drawn");
    });
  }
  function peek(place, sheet) {
    var scale = 3, side = Number(sheet.dataset.side), columns = Number(sheet.dataset.columns);
    var shown = document.createElement("div");
    shown.className = "peek";
    shown.hidden = true;
    shown.style.width = shown.style.height = side * scale + "px";
    shown.style.backgroundImage = "url(" + sheet.src + ")";
    shown.style.backgroundSize = side * scale * columns + "px auto";
    document.body.appendChild(shown);
    place.on("plotly_hover", function (seen) {
      var number = seen.points[0].customdata, at = seen.event;
      if (typeof number !== "number") { return; }
      shown.style.backgroundPosition =
        -(number % columns) * side * scale + "px " + -Math.floor(number / columns) * side * scale + "px";
      shown.hidden = false;
      var left = at.clientX + 18, top = at.clientY - side * scale - 18;
      shown.style.left = Math.max(4, Math.min(left, window.innerWidth - side * scale - 8)) + "px";
      shown.style.top = Math.max(4, top) + "px";
    });
    place.on("plotly_unhover", function () { shown.hidden = true; });
  }
  if (typeof Plotly === "undefined") { return; }
  var figures = Array.prototype.slice.call(document.querySelectorAll("figure.chart"));
  if (!("IntersectionObserver" in window)) { figures.forEach(draw); return; }
  var watch = new IntersectionObserver(function (seen) {
    seen.forEach(function (one) {
      if (one.isIntersecting) { watch.unobserve(one.target); draw(one.target); }
    });
  }, { rootMargin: "600px" });
  figures.forEach(function (figure) { watch.observe(figure); });
})();
