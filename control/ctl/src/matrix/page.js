'use strict';
// Draws the matrix from the data beside it. Names come from manifests, so text is only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const NO_PAIR = -1, ITSELF = -2, PORTS_COLUMNS_MAX = 18, LISTED_MAX = 200;
  const KINDS = {
    open: { mark: '●', word: 'all ports open' },
    some: { mark: '◐', word: 'some ports open' },
    closed: { mark: '–', word: 'closed' },
    itself: { mark: '=', word: 'a pod and itself, always open' },
    never: { mark: '', word: 'no pod, so no policy has a say' },
  };
  const $ = (id) => document.getElementById(id);
  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const table = $('matrix'), detail = $('detail');
  const state = { mode: data.ends.length <= PORTS_COLUMNS_MAX ? 'ports' : 'marks', lit: null, pinned: null, shown: null };
  let columns = [], rows = [], at = new Map();

  const cellOf = (from, to) => data.rows[from][to] >= 0 ? data.cells[data.rows[from][to]] : null;
  const kindOf = (from, to) => {
    const cell = cellOf(from, to);
    return cell ? cell.openness : data.rows[from][to] === ITSELF ? 'itself' : 'never';
  };
  const short = (end) => end.namespace ? end.name.slice(end.namespace.length + 1) : end.name;
  const groupOf = (end) => end.namespace ?? 'outside';
  const countOf = (end) => end.kind === 'pods' && end.memberCount > 1 ? ` ×${end.memberCount}` : '';

  // Every word of the filter must be in the name, a member, a port or the kind.
  const haystacks = data.ends.map((end) => [end.name, end.about, ...end.members, ...end.ports].join(' ').toLowerCase());
  const matching = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return haystacks.flatMap((hay, index) => words.every((word) => hay.includes(word)) ? [index] : []);
  };

  function draw() {
    rows = matching($('from').value);
    columns = matching($('to').value);
    at = new Map();
    table.className = `${state.mode}${state.lit ? ' dimming' : ''}`;
    table.replaceChildren();
    const none = !rows.length || !columns.length;
    $('empty').hidden = !none;
    if (none) return;
    table.append(head(), body());
    const first = at.get(key(rows[0], columns[0]));
    if (first) first.tabIndex = 0;
    mark(state.pinned);
    // The title of a group stays in sight beside the names of the rows.
    table.style.setProperty('--left', `${table.querySelector('th.corner').offsetWidth + 8}px`);
  }
  const key = (from, to) => `${from},${to}`;
  const startsGroup = (list, position) => position > 0 && groupOf(data.ends[list[position]]) !== groupOf(data.ends[list[position - 1]]);

  function head() {
    const groups = make('tr', 'groups', make('th', 'corner'));
    const names = make('tr', 'names');
    const corner = make('th', 'corner', 'from ↓  to →');
    corner.scope = 'col';
    names.append(corner);
    columns.forEach((to, position) => {
      const end = data.ends[to];
      if (position === 0 || startsGroup(columns, position)) {
        const group = make('th', '', make('span', '', groupOf(end)));
        group.colSpan = 0;
        groups.append(group);
      }
      groups.lastChild.colSpan = position === 0 || startsGroup(columns, position) ? 1 : groups.lastChild.colSpan + 1;
      names.append(nameCell(to, 'col', startsGroup(columns, position)));
    });
    return make('thead', '', groups, names);
  }

  function nameCell(index, scope, isFirst) {
    const end = data.ends[index];
    const button = make('button', '', short(end));
    if (countOf(end)) button.append(make('small', '', countOf(end)));
    button.type = 'button';
    button.title = end.name + countOf(end);
    button.dataset.end = index;
    const cell = make('th', isFirst ? 'first' : '', button);
    cell.scope = scope;
    cell.dataset[scope] = index;
    return cell;
  }

  function body() {
    const body = make('tbody');
    rows.forEach((from, position) => {
      if (position === 0 || startsGroup(rows, position)) {
        const title = make('th', '', groupOf(data.ends[from]));
        title.scope = 'rowgroup';
        const rest = make('td');
        rest.colSpan = columns.length;
        body.append(make('tr', 'group', title, rest));
      }
      const row = make('tr', '', nameCell(from, 'row', false));
      columns.forEach((to, column) => row.append(drawCell(from, to, startsGroup(columns, column))));
      body.append(row);
    });
    return body;
  }

  function drawCell(from, to, isFirst) {
    const kind = kindOf(from, to), cell = cellOf(from, to);
    const words = state.mode === 'ports' && kind === 'some' ? cell.text : state.mode === 'ports' && kind === 'open' ? 'all' : KINDS[kind].mark;
    const face = make('span', kind === state.lit ? `${kind} lit` : kind, words);
    const box = make('td', `${kind}${isFirst ? ' first' : ''}`, face);
    box.style.background = kind === 'never' ? '' : 'none';
    box.tabIndex = -1;
    box.dataset.from = from;
    box.dataset.to = to;
    box.setAttribute('aria-label', `${data.ends[from].name} to ${data.ends[to].name}: ${cell ? cell.text : KINDS[kind].word}`);
    at.set(key(from, to), box);
    return box;
  }

  // Details

  function show(from, to) {
    state.shown = [from, to];
    cross(from, to);
    const kind = kindOf(from, to), cell = cellOf(from, to);
    const parts = [heading(from, to)];
    const text = cell ? cell.text : KINDS[kind].word;
    parts.push(make('div', `badge ${kind}`, make('span', '', KINDS[kind].mark), kind === 'closed' && !cell.ways.length ? text : kind === 'closed' ? 'closed: no port' : text));
    if (cell) {
      const near = data.near[key(from, to)];
      cell.ways.forEach((way, index) => {
        if (cell.ways.length > 1) parts.push(make('p', '', make('b', '', way.families), ': ', make('span', 'code', way.text)));
        const misses = near ? near[index] : [null, null];
        parts.push(half('leaving', from, way.egress, misses[0], 'egress'), half('entering', to, way.ingress, misses[1], 'ingress'));
      });
    }
    fill(parts);
  }

  function heading(from, to) {
    return make('h2', '', data.ends[from].name, make('span', 'arrow', ' → '), data.ends[to].name);
  }

  function half(verb, end, index, miss, direction) {
    const title = `${verb} ${data.ends[end].name}`;
    if (index === null) {
      return make('section', 'card', make('h3', '', title), make('p', 'soft', 'No pod, so no policy has a say at this end.'));
    }
    const { isolating, spans } = data.halves[index];
    const kind = !spans.length ? 'closed' : spans.length === 1 && spans[0][0] === 'all ports' ? 'open' : 'some';
    const word = { open: 'allows all', some: 'allows some', closed: 'denies' }[kind];
    const card = make('section', 'card', make('h3', '', title, make('span', `verdict ${kind}`, `${KINDS[kind].mark} ${word}`)));
    if (!isolating.length) {
      card.append(make('p', 'soft', `Not isolated: no policy selects it for ${direction}.`));
      return card;
    }
    const list = make('dl');
    const entry = (term, ...lines) => list.append(make('div', '', make('dt', '', term), ...lines.map((line) => make('dd', '', line))));
    if (spans.length) {
      entry('Allowed by', ...spans.map(([ports, rule]) => make('span', 'code', `${rule}: ${ports}`)));
    } else {
      entry('Allowed by', make('span', '', 'no rule'));
    }
    entry('Isolated by', ...isolating.map((policy) => make('span', 'code', policy)));
    if (miss !== null) {
      const { asked, rule, failed } = data.misses[miss];
      entry(`Nearest miss for ${asked}`, make('span', 'code', rule), make('span', 'soft', `failed in ${failed}`));
    }
    card.append(list);
    return card;
  }

  function showEnd(index) {
    state.shown = null;
    cross(index, index);
    const end = data.ends[index];
    const parts = [make('h2', '', end.name)];
    const about = [end.about, countOf(end) ? `${end.memberCount} pods that no policy can tell apart` : ''].filter(Boolean).join(', ');
    if (about) parts.push(make('p', 'soft', about));
    if (end.ports.length) parts.push(make('p', '', 'Declares ', make('span', 'code', end.ports.join(', '))));
    const all = data.ends.map((_, other) => other);
    parts.push(reachList('Reached by', index, all.map((other) => [other, index])));
    parts.push(reachList('Reaches', index, all.map((other) => [index, other])));
    if (end.memberCount > 1) {
      const more = end.memberCount - end.members.length;
      const members = end.members.map((member) => make('li', 'code', member));
      if (more > 0) members.push(make('li', 'soft', `and ${more} more`));
      parts.push(make('section', 'card', make('h3', '', end.kind === 'pods' ? 'Pods' : 'Blocks'), make('ul', '', ...members)));
    }
    fill(parts);
  }

  function reachList(title, index, pairs) {
    const open = pairs.filter(([from, to]) => ['open', 'some'].includes(kindOf(from, to)));
    const items = open.slice(0, LISTED_MAX).map(([from, to]) => {
      const other = from === index ? to : from;
      const button = make('button', '', data.ends[other].name);
      button.type = 'button';
      button.dataset.pair = key(from, to);
      return make('li', '', button, ' ', make('span', 'code', cellOf(from, to).text));
    });
    if (open.length > LISTED_MAX) items.push(make('li', 'soft', `and ${open.length - LISTED_MAX} more`));
    if (!items.length) items.push(make('li', 'soft', 'nobody'));
    return make('section', 'card', make('h3', '', title, make('span', 'soft', String(open.length))), make('ul', '', ...items));
  }

  function fill(parts) {
    if (state.pinned !== null) {
      const close = make('button', '', '×');
      close.id = 'close';
      close.type = 'button';
      close.title = 'Unpin (Esc)';
      close.setAttribute('aria-label', 'Unpin');
      close.onclick = unpin;
      parts.unshift(close);
    }
    detail.replaceChildren(...parts);
    detail.scrollTop = 0;
  }

  function welcome() {
    state.shown = null;
    const keys = (...names) => names.flatMap((name) => [make('kbd', '', name), ' ']);
    const parts = [
      make('h2', '', 'Point at a cell'),
      make('p', '', 'Rows open connections, columns accept them. The reasons appear here: which rule allows, which policies isolate, and which rule came nearest. Click to keep a cell; click a name for everything it reaches.'),
      make('p', 'soft', ...keys('←', '↑', '↓', '→'), 'move, ', ...keys('Enter'), 'keeps, ', ...keys('Esc'), 'lets go, ', ...keys('/'), 'filters'),
    ];
    if (data.notes.length) parts.push(make('div', 'notes', ...data.notes.map((note) => make('p', '', note))));
    fill(parts);
  }

  function cross(from, to) {
    table.querySelectorAll('th.on').forEach((head) => head.classList.remove('on'));
    table.querySelector(`th[data-row="${from}"]`)?.classList.add('on');
    table.querySelector(`th[data-col="${to}"]`)?.classList.add('on');
  }

  function mark(pair) {
    table.querySelectorAll('.picked').forEach((face) => face.classList.remove('picked'));
    if (pair?.length) at.get(key(...pair))?.firstChild.classList.add('picked');
  }

  function pin(from, to) {
    state.pinned = [from, to];
    mark(state.pinned);
    show(from, to);
    remember(`${data.ends[from].name}>${data.ends[to].name}`);
  }
  // The address names the cell, so that a link leads a colleague to it.
  const remember = (text) => history.replaceState(null, '', text ? `#${encodeURIComponent(text)}` : location.pathname + location.search);
  function recall() {
    const [from, to] = decodeURIComponent(location.hash.slice(1)).split('>').map((name) => data.ends.findIndex((end) => end.name === name));
    if (from >= 0 && to >= 0) {
      pin(from, to);
      at.get(key(from, to))?.scrollIntoView({ block: 'center', inline: 'center' });
    }
    else if (from >= 0) keepEnd(from);
  }
  function keepEnd(index) {
    state.pinned = [];
    mark(null);
    showEnd(index);
    remember(data.ends[index].name);
  }
  function unpin() {
    state.pinned = null;
    mark(null);
    cross(-1, -1);
    remember('');
    welcome();
  }

  // Input

  const boxOf = (event) => event.target.closest?.('td[data-from]');
  const pairOf = (box) => [Number(box.dataset.from), Number(box.dataset.to)];
  table.addEventListener('pointerover', (event) => {
    const box = boxOf(event);
    if (!box || event.pointerType === 'touch') return;
    if (state.pinned) cross(...pairOf(box)); else show(...pairOf(box));
  });
  table.addEventListener('focusin', (event) => {
    const box = boxOf(event);
    if (!box) return;
    table.querySelectorAll('td[tabindex="0"]').forEach((other) => { other.tabIndex = -1; });
    box.tabIndex = 0;
    if (state.pinned) cross(...pairOf(box)); else show(...pairOf(box));
  });
  table.addEventListener('click', (event) => {
    const box = boxOf(event), name = event.target.closest('button[data-end]');
    if (box) pin(...pairOf(box));
    if (name) keepEnd(Number(name.dataset.end));
  });
  detail.addEventListener('click', (event) => {
    const link = event.target.closest('button[data-pair]');
    if (!link) return;
    const [from, to] = link.dataset.pair.split(',').map(Number);
    pin(from, to);
    at.get(key(from, to))?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  });
  table.addEventListener('keydown', (event) => {
    const box = boxOf(event);
    if (!box) return;
    const [from, to] = pairOf(box);
    const row = rows.indexOf(from), column = columns.indexOf(to);
    const target = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, columns.length - 1], PageUp: [0, column], PageDown: [rows.length - 1, column],
    }[event.key];
    if (target) {
      at.get(key(rows[target[0]], columns[target[1]]))?.focus();
      event.preventDefault();
    } else if (event.key === 'Enter' || event.key === ' ') {
      pin(from, to);
      event.preventDefault();
    }
  });
  document.addEventListener('keydown', (event) => {
    // before any cell has the focus, an arrow gives it to the one that a Tab would reach
    if (event.key.startsWith('Arrow') && event.target === document.body) {
      table.querySelector('td[tabindex="0"]')?.focus();
      event.preventDefault();
    }
    if (event.key === 'Escape') unpin();
    if (event.key === '/' && event.target.tagName !== 'INPUT') { $('from').focus(); event.preventDefault(); }
  });
  let pending = 0;
  const redraw = () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(draw); };
  $('from').addEventListener('input', redraw);
  $('to').addEventListener('input', redraw);
  $('clear').addEventListener('click', () => { $('from').value = ''; $('to').value = ''; draw(); });
  $('tools').addEventListener('submit', (event) => event.preventDefault());
  $('mode').addEventListener('change', (event) => { state.mode = event.target.value; draw(); });

  function legend() {
    const counts = { open: 0, some: 0, closed: 0 };
    data.rows.forEach((row) => row.forEach((cell) => { if (cell >= 0) counts[data.cells[cell].openness] += 1; }));
    Object.entries(counts).forEach(([kind, count]) => {
      const button = make('button', '', make('span', `mark ${kind}`, KINDS[kind].mark), make('b', '', count.toLocaleString('en')), KINDS[kind].word);
      button.type = 'button';
      button.setAttribute('aria-pressed', 'false');
      button.addEventListener('click', () => {
        state.lit = state.lit === kind ? null : kind;
        $('legend').querySelectorAll('button').forEach((other) => other.setAttribute('aria-pressed', String(other === button && state.lit === kind)));
        draw();
      });
      $('legend').append(button);
    });
    if (data.rows.some((row) => row.includes(ITSELF))) {
      $('legend').append(make('span', 'plain', make('span', 'mark itself', '='), KINDS.itself.word));
    }
  }

  $('sources').textContent = `${data.ends.length} rows, from ${data.sources.join(', ')}`;
  document.querySelector(`input[name=mode][value=${state.mode}]`).checked = true;
  legend();
  welcome();
  draw();
  try { recall(); } catch { /* an address that somebody mistyped names nothing */ }
})();
