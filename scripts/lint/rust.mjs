// Reads Rust source as far as the checks need it: tokens, comments, and the items of a module. It
// is no parser of Rust. It knows strings, raw strings, comments and brackets, so that nothing
// inside a string or a comment is taken for code.

const IDENTIFIER = /(?:r#)?[\p{XID_Start}_][\p{XID_Continue}]*/uy;
const NUMBER = /\d[\w]*(?:\.\d[\w]*)?/y;
const RAW_STRING = /(?:b|c)?r(#*)"/y;
const STRING = /(?:b|c)?"(?:[^"\\]|\\[^])*"/y;
const CHARACTER = /b?'(?:[^'\\\n]|\\(?:u\{[^}]*\}|x..|[^]))'/uy;
const LIFETIME = /'[\p{XID_Start}_][\p{XID_Continue}]*/uy;
const CLOSING = { '(': ')', '[': ']', '{': '}' };

/**
 * Splits a source text.
 *
 * A token is `{ kind, text, line }`; its kind is `name`, `string`, `literal`, `lifetime` or `sign`,
 * and `::` is one sign. A comment is `{ text, line, lines }`: its text with the slashes, its first
 * line from 1, and the number of its lines.
 */
export function scan(source) {
  const tokens = [];
  const comments = [];
  let at = source.startsWith('#!') && !/^#!\s*\[/.test(source) ? source.search(/\n|$/) : 0;
  let line = 1;
  const match = (pattern) => {
    pattern.lastIndex = at;
    return pattern.exec(source);
  };
  const take = (kind, text) => {
    if (kind) tokens.push({ kind, text, line });
    for (const character of text) if (character === '\n') line += 1;
    at += text.length;
  };
  while (at < source.length) {
    let found;
    if (source.startsWith('//', at)) {
      const end = source.indexOf('\n', at);
      const text = source.slice(at, end < 0 ? source.length : end).replace(/\r$/, '');
      comments.push({ text, line, lines: 1 });
      take(null, text);
    } else if (source.startsWith('/*', at)) {
      const text = blockComment(source, at);
      comments.push({ text, line, lines: text.split('\n').length });
      take(null, text);
    } else if ((found = match(RAW_STRING))) {
      const end = source.indexOf(`"${found[1]}`, at + found[0].length);
      const length = end < 0 ? source.length : end + 1 + found[1].length;
      take('string', source.slice(at, length));
    } else if ((found = match(STRING))) take('string', found[0]);
    else if ((found = match(CHARACTER))) take('literal', found[0]);
    else if ((found = match(LIFETIME))) take('lifetime', found[0]);
    else if ((found = match(IDENTIFIER))) take('name', found[0]);
    else if ((found = match(NUMBER))) take('literal', found[0]);
    else if (source.startsWith('::', at)) take('sign', '::');
    else take(/\s/.test(source[at]) ? null : 'sign', source[at]);
  }
  return { tokens, comments };
}

/** The block comment that starts at `start`; block comments nest. */
function blockComment(source, start) {
  const marks = /\/\*|\*\//g;
  marks.lastIndex = start;
  let depth = 0;
  for (let mark; (mark = marks.exec(source));) {
    depth += mark[0] === '/*' ? 1 : -1;
    if (depth === 0) return source.slice(start, marks.lastIndex);
  }
  return source.slice(start);
}

/** Returns the index of the bracket that closes the one at `open`. */
export function closing(tokens, open) {
  const stack = [];
  for (let at = open; at < tokens.length; at += 1) {
    const { kind, text } = tokens[at];
    if (kind !== 'sign') continue;
    if (CLOSING[text]) stack.push(CLOSING[text]);
    else if (text === stack.at(-1)) {
      stack.pop();
      if (stack.length === 0) return at;
    }
  }
  return tokens.length - 1;
}

/** Returns the tokens without the items that only tests compile: `#[test]` and `#[cfg(test)]`. */
export function withoutTests(tokens) {
  const kept = [];
  for (let at = 0; at < tokens.length;) {
    const attributes = outerAttributes(tokens, at);
    if (attributes.some(isForTests)) {
      at = endOfItem(tokens, attributes.at(-1).end + 1) + 1;
    } else if (attributes.length > 0) {
      const { end } = attributes.at(-1);
      kept.push(...tokens.slice(at, end + 1));
      at = end + 1;
    } else {
      kept.push(tokens[at]);
      at += 1;
    }
  }
  return kept;
}

/** The attributes `#[…]` that begin at `at`: the tokens in each, and the index of its `]`. */
export function outerAttributes(tokens, at) {
  const found = [];
  while (tokens[at]?.text === '#' && tokens[at + 1]?.text === '[') {
    const end = closing(tokens, at + 1);
    found.push({ tokens: tokens.slice(at + 2, end), end });
    at = end + 1;
  }
  return found;
}

function isForTests({ tokens }) {
  if (tokens.at(-1)?.text === 'test' && tokens.every(({ text }) => /^(::|\w+)$/.test(text))) return true;
  return tokens[0]?.text === 'cfg' && tokens[1]?.text === '(' && !canHold(tokens.slice(2, -1));
}

/** Returns `true` if the predicate of a `cfg` can hold in a build without tests. */
function canHold(predicate) {
  const [{ text: name } = {}, bracket] = predicate;
  if (bracket?.text !== '(') return name !== 'test';
  const parts = separate(predicate.slice(2, closing(predicate, 1)));
  if (name === 'all') return parts.every(canHold);
  if (name === 'any') return parts.some(canHold);
  // `not(test)` holds; of other negations nothing is known.
  return true;
}

/** Splits tokens at the commas outside of brackets. */
export function separate(tokens) {
  const parts = [[]];
  for (let at = 0; at < tokens.length; at += 1) {
    const end = CLOSING[tokens[at].text] ? closing(tokens, at) : at;
    if (tokens[at].text === ',') parts.push([]);
    else parts.at(-1).push(...tokens.slice(at, end + 1));
    at = end;
  }
  return parts.filter((part) => part.length > 0);
}

const ENDS_WITH_SEMICOLON = ['use', 'static', 'type', 'let', 'const'];
const ENDS_WITH_BLOCK =
  'fn impl mod struct enum trait union unsafe async extern macro_rules if while for loop match {'.split(' ');

/**
 * Returns the index of the last token of the item, statement, field, variant or match arm that
 * begins at `start`.
 */
function endOfItem(tokens, start) {
  let first = start;
  if (tokens[first]?.text === 'pub') first += 1;
  if (tokens[first]?.text === '(' && first > start) first = closing(tokens, first) + 1;
  const isConstFn =
    tokens[first]?.text === 'const' && ['fn', 'unsafe', 'async'].includes(tokens[first + 1]?.text);
  const endsWithBlock = isConstFn || ENDS_WITH_BLOCK.includes(tokens[first]?.text);
  const endsWithComma = !endsWithBlock && !ENDS_WITH_SEMICOLON.includes(tokens[first]?.text);
  for (let at = first; at < tokens.length; at += 1) {
    const { kind, text } = tokens[at];
    if (kind !== 'sign') continue;
    if (text === ';' || (text === ',' && endsWithComma)) return at;
    if (text === ')' || text === ']' || text === '}') return at - 1;
    if (text === '<') at = closingAngle(tokens, at);
    else if (CLOSING[text]) {
      const isArm = tokens[at - 1]?.text === '>' && tokens[at - 2]?.text === '=';
      at = closing(tokens, at);
      const endsHere = endsWithBlock || (endsWithComma && isArm && tokens[at + 1]?.text !== ',');
      if (text === '{' && endsHere) return at;
    }
  }
  return tokens.length - 1;
}

/** Returns the index of the `>` that closes the `<` at `open`, or `open` if it is a comparison. */
function closingAngle(tokens, open) {
  let depth = 0;
  for (let at = open; at < tokens.length; at += 1) {
    const { text } = tokens[at];
    if (text === '<') depth += 1;
    else if (text === '>' && tokens[at - 1].text !== '-' && tokens[at - 1].text !== '=') {
      depth -= 1;
      if (depth === 0) return at;
    } else if (text === ';' || text === '{' || text === '}') return open;
    else if (text === '(' || text === '[') at = closing(tokens, at);
  }
  return open;
}
