"use strict";
// Puts each part of the page that has changed in place of the old one. The page
// is whole without this script; it then loads itself anew.
(() => {
	const live = document.getElementById("live");
	let source = null;
	const say = (text, good) => { live.hidden = false; live.textContent = text; live.classList.toggle("on", good); };
	const show = (part) => {
		const place = document.getElementById(part.id);
		if (!place) return;
		const open = [...place.querySelectorAll("details[open]")].map((d) => d.id);
		place.innerHTML = part.html; // written, and escaped, by the server
		for (const id of open) {
			const d = document.getElementById(id);
			if (d) d.open = true;
		}
	};
	const start = () => {
		if (source || document.hidden) return;
		source = new EventSource("status/events" + location.search);
		source.onopen = () => say("live", true);
		source.addEventListener("part", (e) => { say("live", true); show(JSON.parse(e.data)); });
		source.onerror = () => {
			say("not connected", false);
			if (source && source.readyState === EventSource.CLOSED) {
				stop();
				setTimeout(start, 15000);
			}
		};
	};
	const stop = () => { if (source) source.close(); source = null; };
	document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else start(); });
	addEventListener("pagehide", stop);
	start();
})();
