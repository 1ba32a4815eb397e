// Keeps the live part of a page up to date, and runs the studio without a reload. Every page works without it.
'use strict';

(() => {
  const live = document.getElementById('live');
  const link = document.getElementById('link');
  const fragment = { headers: { 'Spate-Fragment': '1' }, credentials: 'same-origin' };

  const say = (text) => {
    if (link) {
      link.textContent = text;
      link.hidden = text === '';
    }
  };

  // What somebody is doing in the live part stays: what is unfolded, the focus, and where tables are scrolled to.
  const place = (el) => {
    const path = [];
    for (; el && el !== live; el = el.parentElement) {
      path.unshift([...el.parentElement.children].indexOf(el));
    }
    return path;
  };
  const find = (path) => path.reduce((el, i) => el && el.children[i], live);

  const replace = (html) => {
    const focus = live.contains(document.activeElement) ? place(document.activeElement) : null;
    const open = [...live.querySelectorAll('details[open]')].map(place);
    const scrolled = [...live.querySelectorAll('.scroll')].filter((el) => el.scrollLeft || el.scrollTop).map((el) => [place(el), el.scrollLeft, el.scrollTop]);
    live.innerHTML = html;
    open.forEach((path) => { const el = find(path); if (el && el.tagName === 'DETAILS') el.open = true; });
    scrolled.forEach(([path, left, top]) => { const el = find(path); if (el) { el.scrollLeft = left; el.scrollTop = top; } });
    const el = focus && find(focus);
    if (el && el.focus) el.focus({ preventScroll: true });
  };

  let shown = '';
  let busy = false;
  let again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, fragment);
      if (answer.status === 401) { location.reload(); return; }
      const html = await answer.text();
      const selecting = document.getSelection() && !document.getSelection().isCollapsed && live.contains(document.getSelection().anchorNode);
      if (html !== shown && !selecting) { replace(html); shown = html; }
      say('');
    } catch (e) {
      say('not connected');
    } finally {
      busy = false;
      if (again) { again = false; setTimeout(refresh, 100); }
    }
  };

  if (live && live.innerHTML.trim() !== '' && window.EventSource) {
    let source;
    const connect = () => {
      source = new EventSource('/api/stream');
      source.addEventListener('changed', () => { if (!document.hidden) refresh(); });
      source.onopen = () => say('');
      source.onerror = () => say('not connected');
    };
    connect();
    document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
    addEventListener('pagehide', () => source.close());
    addEventListener('pageshow', (e) => { if (e.persisted) connect(); });
  }

  // The keys / and g move as in other programs of this kind.
  addEventListener('keydown', (e) => {
    if (e.key === '/' && !e.ctrlKey && !e.metaKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      const box = document.querySelector('.search input');
      if (box) { e.preventDefault(); box.focus(); }
    }
  });

  const studio = document.getElementById('studio');
  if (!studio) return;
  const text = studio.querySelector('textarea');
  const faults = document.getElementById('faults');
  const result = document.getElementById('result');

  let timer;
  let asked = 0;
  const check = async () => {
    const n = ++asked;
    try {
      const answer = await fetch('/api/check', { method: 'POST', body: new URLSearchParams({ statement: text.value }), credentials: 'same-origin' });
      const body = await answer.json();
      if (n !== asked || !body.faults) return;
      faults.textContent = body.faults.map((f) => f.shown).join('\n');
      text.setAttribute('aria-invalid', body.faults.length > 0);
    } catch (e) { /* the next key tries again */ }
  };
  text.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(check, 300); });

  let running;
  studio.addEventListener('submit', async (e) => {
    if (!e.submitter || e.submitter.value !== 'run') return;
    e.preventDefault();
    if (running) { running.abort(); return; }
    running = new AbortController();
    const label = e.submitter.textContent;
    e.submitter.textContent = 'Cancel';
    result.setAttribute('aria-busy', 'true');
    try {
      const form = new URLSearchParams(new FormData(studio));
      form.set('do', 'run');
      const answer = await fetch('/studio', { method: 'POST', body: form, headers: fragment.headers, credentials: 'same-origin', signal: running.signal });
      result.innerHTML = await answer.text();
    } catch (err) {
      result.textContent = err.name === 'AbortError' ? 'Cancelled.' : 'The console cannot be reached.';
    } finally {
      running = null;
      e.submitter.textContent = label;
      result.removeAttribute('aria-busy');
    }
  });
})();
