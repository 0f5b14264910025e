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
    Plotly.newPlot(place, told.data, told.layout, calm).catch(function () {
      figure.classList.remove("drawn");
    });
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
