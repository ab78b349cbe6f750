'use strict';

/** Call `fn` once, `waitMs` after the last of a burst of calls. */
function debounce(fn, waitMs) {
  let timer = null;
  return function (...args) {
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      fn.apply(this, args);
    }, waitMs);
  };
}

const box = document.querySelector('#search');
const list = document.querySelector('#results');

box.addEventListener('input', debounce(async (event) => {
  const response = await fetch(`/search?q=${encodeURIComponent(event.target.value)}`);
  const items = await response.json();
  list.replaceChildren(...items.map((item) => {
    const row = document.createElement('li');
    row.textContent = item.title;
    return row;
  }));
}, 200));

module.exports = { debounce };
