// Tests of scripts/lint.mjs: each check finds what it must in a small tree, and passes what it may.
//
//   node --test scripts/*.test.mjs
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Tree } from './lint/files.mjs';
import * as circles from './lint/circles.mjs';
import * as headers from './lint/headers.mjs';
import * as layers from './lint/layers.mjs';
import * as names from './lint/names.mjs';
import * as openings from './lint/openings.mjs';
import { scan, withoutTests } from './lint/rust.mjs';
import * as width from './lint/width.mjs';

const everything = { all: false, under: () => true };
const folders = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

/** Makes a working tree of files, given by path and text. */
function tree(files) {
  const root = mkdtempSync(join(tmpdir(), 'waterclock-lint-'));
  folders.push(root);
  execFileSync('git', ['init', '--quiet', root]);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return new Tree(root);
}

/** Makes a working tree of one crate, `demo`, whose sources are given by their paths in `src`. */
function crate(sources) {
  const files = Object.entries(sources).map(([path, text]) => [`src/${path}`, text]);
  return tree({ 'Cargo.toml': '[package]\nname = "demo"\n', ...Object.fromEntries(files) });
}

/** The arrows of the crate, as `a.rs -> b.rs`, in order. */
function arrows(sources) {
  const { notes } = circles.check(crate({ 'lib.rs': '', ...sources }), { all: true });
  const shown = notes.filter((line) => line.includes(' -> '));
  return shown.map((line) => line.replace(/^ *src\/(.*):\d+ -> src\/(\S+) .*$/, '$1 -> $2')).sort();
}

const problems = (sources) => circles.check(crate(sources), {}).problems;

describe('circles', () => {
  const lib = 'mod a;\nmod b;\nmod c;\n';

  test('two siblings that import from each other are a circle, and its names are shown', () => {
    const [problem, ...others] = problems({
      'lib.rs': 'mod a; mod b;',
      'a.rs': 'use crate::b::Below;\npub struct Above;',
      'b.rs': 'pub struct Below;\n\nuse crate::a::Above;',
    });
    assert.deepEqual(others, []);
    assert.match(problem, /2 of 3 files form a circle/);
    assert.match(problem, /src\/a\.rs:1 -> src\/b\.rs \(Below\)/);
    assert.match(problem, /src\/b\.rs:3 -> src\/a\.rs \(Above\)/);
  });

  test('one direction is no circle', () => {
    assert.deepEqual(
      problems({ 'lib.rs': lib, 'a.rs': 'use crate::b::X;', 'b.rs': 'use crate::c::X;', 'c.rs': '' }),
      [],
    );
  });

  test('a parent and its direct child may import from each other', () => {
    const sources = {
      'lib.rs': 'mod a;',
      'a/mod.rs': 'mod b; use b::Inner; pub struct Outer;',
      'a/b/mod.rs': 'mod c; use super::Outer; pub struct Inner(c::Innermost);',
      'a/b/c.rs': 'use super::Inner; pub struct Innermost;',
    };
    assert.deepEqual(problems(sources), []);
  });

  test('a parent and its grandchild may not', () => {
    const sources = {
      'lib.rs': 'mod a;',
      'a/mod.rs': 'mod b; use b::c::Inner; pub struct Outer;',
      'a/b/mod.rs': 'pub mod c;',
      'a/b/c.rs': 'use super::super::Outer; pub struct Inner;',
    };
    assert.equal(problems(sources).length, 1);
  });

  test('a circle through a parent is found', () => {
    const sources = {
      'lib.rs': 'mod a; mod b; pub struct Root(a::A);',
      'a.rs': 'use crate::b::B; pub struct A(B);',
      'b.rs': 'use super::Root; pub struct B;',
    };
    assert.match(problems(sources)[0], /3 of 3 files/);
  });

  test('two circles are reported as two', () => {
    const sources = {
      'lib.rs': 'mod a; mod b; mod c; mod d;',
      'a.rs': 'use crate::b::B;',
      'b.rs': 'use crate::a::A;',
      'c.rs': 'use crate::d::D;',
      'd.rs': 'use crate::c::C;',
    };
    assert.equal(problems(sources).length, 2);
  });

  test('nested and multi-line imports are read', () => {
    const a = 'use crate::{\n    b::{self, X as Y},\n    c::{d::{Z}, *},\n};';
    const found = arrows({ 'lib.rs': lib, 'a.rs': a, 'b.rs': '', 'c/mod.rs': 'pub mod d;', 'c/d.rs': '' });
    assert.deepEqual(found, ['a.rs -> b.rs', 'a.rs -> c/d.rs', 'a.rs -> c/mod.rs']);
  });

  test('paths in code count, also by super, self, a child module, and $crate', () => {
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': 'fn f() { crate::b::g() }', 'b.rs': '', 'c.rs': '' }), [
      'a.rs -> b.rs',
    ]);
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': 'fn f(x: super::b::X) {}', 'b.rs': '', 'c.rs': '' }), [
      'a.rs -> b.rs',
    ]);
    assert.deepEqual(arrows({ 'lib.rs': 'mod a; fn f() { self::a::g() }', 'a.rs': '' }), ['lib.rs -> a.rs']);
    assert.deepEqual(arrows({ 'lib.rs': 'mod a; fn f() { a::g() }', 'a.rs': '' }), ['lib.rs -> a.rs']);
    const macro = 'macro_rules! m { () => { $crate::b::g() } }';
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': macro, 'b.rs': '', 'c.rs': '' }), ['a.rs -> b.rs']);
  });

  test('an import in a function counts', () => {
    const sources = { 'lib.rs': lib, 'a.rs': 'fn f() { use crate::b::X; }', 'b.rs': '', 'c.rs': '' };
    assert.deepEqual(arrows(sources), ['a.rs -> b.rs']);
  });

  test('a path behind an imported module leads into that module', () => {
    const sources = {
      'lib.rs': 'mod a; mod b;',
      'a.rs': 'use crate::b;\nfn f() { b::c::g() }',
      'b/mod.rs': 'pub mod c;',
      'b/c.rs': '',
    };
    assert.deepEqual(arrows(sources), ['a.rs -> b/c.rs', 'a.rs -> b/mod.rs']);
  });

  test('the `use<…>` of a return type is no import', () => {
    const a = "fn f() -> impl A + use<'_> { crate::b::g() }\nfn h() {}";
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': a, 'b.rs': '', 'c.rs': '' }), ['a.rs -> b.rs']);
  });

  test('a path in an attribute counts', () => {
    const a = 'struct A { #[serde(with = "crate::b")] x: u8 }';
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': a, 'b.rs': '', 'c.rs': '' }), ['a.rs -> b.rs']);
  });

  test('a re-exported item belongs to the file that defines it', () => {
    const sources = {
      'lib.rs': 'mod a; pub use a::X;',
      'a/mod.rs': 'mod b; mod c; pub use self::b::Y as X;',
      'a/b.rs': 'pub struct Y;',
      'a/c.rs': 'use super::X; use crate::X as Z;',
    };
    assert.deepEqual(arrows(sources), ['a/c.rs -> a/b.rs', 'a/mod.rs -> a/b.rs', 'lib.rs -> a/b.rs']);
  });

  test('a glob is followed to the names that are used', () => {
    const sources = {
      'lib.rs': 'mod a; mod b; mod c;',
      'a.rs': 'use crate::b::*;\nfn f(x: X) {}',
      'b.rs': 'pub use crate::c::*;',
      'c.rs': 'pub struct X;',
    };
    assert.deepEqual(arrows(sources), ['a.rs -> b.rs', 'a.rs -> c.rs', 'b.rs -> c.rs']);
  });

  test('globs of two modules from each other end', () => {
    const sources = {
      'lib.rs': 'mod a; mod b;',
      'a.rs': 'pub use crate::b::*; fn f(x: X) {}',
      'b.rs': 'pub use crate::a::*; fn g(x: Y) {}',
    };
    assert.deepEqual(arrows(sources), ['a.rs -> b.rs', 'b.rs -> a.rs']);
  });

  test('other crates, local variables, fields and methods are no arrows', () => {
    const root =
      'mod a; use serde::a::X; fn f(a: u8) { let y = a + x.a + x.a(); tokio::a::spawn(); ::a::b(); }';
    assert.deepEqual(
      arrows({ 'lib.rs': root, 'a.rs': 'use std::a; pub(crate) struct X; pub(super) fn f(self) {}' }),
      [],
    );
  });

  test('text in strings, comments and documentation is no code', () => {
    const a = `
      // use crate::b::A;
      /* use crate::b::B; /* nested */ use crate::b::C; */
      /// use crate::b::D;
      const A: &str = "use crate::b::E; \\" crate::b::F";
      const B: &str = r#"" use crate::b::G;"#;
      const C: (char, &'static str) = ('"', " crate::b::H ");`;
    assert.deepEqual(arrows({ 'lib.rs': lib, 'a.rs': a, 'b.rs': '', 'c.rs': '' }), []);
  });

  test('what only tests compile is ignored', () => {
    const a = `
      #[cfg(test)]
      mod tests { use crate::b::X; }
      #[cfg(all(test, unix))]
      use crate::b::Y;
      #[cfg(test)]
      mod more;
      #[test]
      fn f() { crate::b::g() }
      #[cfg(any(test, feature = "x"))]
      use crate::c::Z;
      #[cfg(not(test))]
      mod d;`;
    const sources = {
      'lib.rs': lib,
      'a.rs': a,
      'a/more.rs': 'use crate::b::X;',
      'b.rs': '',
      'c.rs': '',
      'a/d.rs': 'use crate::b::X;',
    };
    assert.deepEqual(arrows(sources), ['a.rs -> c.rs', 'a/d.rs -> b.rs']);
  });

  test('a module inside a file belongs to the file', () => {
    const sources = {
      'lib.rs': 'mod a; mod b;',
      'a.rs': 'pub mod inner { pub mod deep; use super::super::b::X; pub struct Y; }',
      'a/inner/deep.rs': 'use super::Y;',
      'b.rs': 'use crate::a::inner::Y;',
    };
    assert.deepEqual(arrows(sources), ['a.rs -> b.rs', 'a/inner/deep.rs -> a.rs', 'b.rs -> a.rs']);
  });

  test('both files of a module that a cfg chooses count', () => {
    const sources = {
      'lib.rs':
        '#[cfg(unix)]\n#[path = "x/unix.rs"]\nmod os;\n#[cfg(not(unix))]\n#[path = "other.rs"]\nmod os;\nuse os::f;',
      'x/unix.rs': 'pub fn f() {}',
      'other.rs': 'pub fn f() {}',
    };
    assert.deepEqual(arrows(sources), ['lib.rs -> other.rs', 'lib.rs -> x/unix.rs']);
  });

  test('programs, tests and examples are crates, too', () => {
    const circle = (folder) => ({
      [`${folder}/a.rs`]: 'use crate::b::B;',
      [`${folder}/b.rs`]: 'use crate::a::A;',
    });
    const found = circles.check(
      tree({
        'one/Cargo.toml': '[package]\nname = "one"\n\n[[bin]]\npath = "odd/place.rs"\n',
        'one/odd/place.rs': 'mod a; mod b;',
        ...circle('one/odd'),
        'one/tests/t/main.rs': 'mod a; mod b;',
        ...circle('one/tests/t'),
        'one/examples/e/main.rs': 'mod a; mod b;',
        ...circle('one/examples/e'),
        'one/examples/two/Cargo.toml': '[package]\nname = "two"\n',
        'one/examples/two/src/main.rs': 'mod a; mod b;',
        ...circle('one/examples/two/src'),
      }),
      {},
    ).problems;
    assert.deepEqual(found.map((problem) => problem.split(':')[0]).sort(), [
      'one/examples/e/main.rs',
      'one/examples/two/src/main.rs',
      'one/odd/place.rs',
      'one/tests/t/main.rs',
    ]);
  });
});

describe('layers', () => {
  const table = { layers: { demo: [['lib'], ['top', 'beside'], ['low']] } };
  const sources = {
    'lib.rs': 'mod top; mod beside; mod low; use top::X;',
    'top/mod.rs': 'mod x; use crate::beside::Y;',
    'top/x.rs': 'use crate::low::Z;',
    'beside.rs': '',
    'low.rs': '',
  };
  const check = (changes) => layers.check(crate({ ...sources, ...changes }), table).problems;

  test('imports within a layer and from those below are allowed', () => assert.deepEqual(check({}), []));

  test('an import from a layer above is not', () => {
    const [problem, ...others] = check({ 'low.rs': '\nuse crate::top::x::W;' });
    assert.deepEqual(others, []);
    assert.match(problem, /src\/low\.rs:2 -> src\/top\/x\.rs \(W\) points up: low lies below top/);
  });

  test('a module that the table lacks is reported', () => {
    assert.match(
      check({ 'low.rs': '', 'lib.rs': 'mod top; mod beside; mod low; mod new;', 'new.rs': '' })[0],
      /lacks new/,
    );
  });

  test('a layer that is gone is reported', () => {
    assert.match(check({ 'lib.rs': 'mod top; mod low;' }).join(), /names beside, not in src/);
  });
});

describe('openings', () => {
  const found = (text) => openings.check(tree({ 'a.rs': text }), everything);

  test('clauses are recognised', () => {
    for (const opening of [
      'What a client is told',
      'Whether it is so',
      'Who comes then',
      'How many may wait',
      'When it began',
      'Where it goes',
      'Why',
      'Which of them',
      'Whose it is',
      'By what it is known',
      'By which',
      'From where it came',
      'For whom',
      'So that it ends',
      'None if there is none',
      'None for the last',
      'If there is one',
      'Until it ends',
      'Since when',
      'As long as it runs',
      'As many as there are',
      'As much as fits',
      'After how long',
      'Up to how many',
      'With what it begins',
      'In what it is kept',
      'That many',
      'what',
      '*What* it is',
      '[Whether](x) so',
      '(If there is one)',
      'For who reads it',
      'As it was sent',
    ]) {
      assert.ok(openings.isClause(opening), opening);
    }
  });

  test('noun phrases and verbs are not', () => {
    for (const opening of [
      'The event loop',
      'Returns `true` if',
      'Whatever comes',
      'Iframes',
      'Howl',
      'Thatch',
      'Untilted',
      '`if` in a macro',
      'None',
      'None of them',
      'Asserts what it can',
      'For tests',
      'By default 3',
      'As a number',
      '`what` is a word',
      'whoami',
    ]) {
      assert.ok(!openings.isClause(opening), opening);
    }
  });

  test('consecutive lines are one comment, and its first line with text is its opening', () => {
    const text =
      '//!\n//! One\n//! what two\n/// Three\n///\n/// what four\nfn f() {}\n/// Five\n\n' +
      '/// Six\n// no\n//// no\n/** Seven */\n/**\n * Eight\n */';
    const opened = openings.docComments(scan(text).comments).map(({ line, opening }) => [line, opening]);
    assert.deepEqual(opened, [
      [1, 'One'],
      [4, 'Three'],
      [8, 'Five'],
      [10, 'Six'],
      [13, 'Seven'],
      [14, 'Eight'],
    ]);
  });

  test('a string that looks like documentation is none', () => {
    assert.deepEqual(openings.docComments(scan('const A: &str = "\n/// What\n";').comments), []);
  });

  test('five in a hundred fail, fewer pass', () => {
    const comments = (clauses, all) =>
      Array.from({ length: all }, (_, at) => `/// ${at < clauses ? 'What' : 'The'} x\nfn f${at}() {}\n`).join(
        '',
      );
    assert.deepEqual(found(comments(4, 100)).problems, []);
    assert.deepEqual(found(comments(0, 1)).problems, []);
    assert.deepEqual(found('').problems, []);
    const { problems, notes } = found(comments(5, 100));
    assert.match(problems[0], /^5\.0 % of 100 /);
    assert.match(notes[0], /^a\.rs: 5, such as: What x$/);
  });
});

describe('names', () => {
  const pack = (name) => `[package]\nname = "${name}"\n`;
  const check = (files, exceptions = []) => names.check(tree(files), { exceptions }).problems;
  const one = (texts) => {
    const sources = texts.map((text, at) => [`src/m${at}.rs`, text]);
    const lib = texts.map((_, at) => `mod m${at};`).join(' ');
    return check({ 'Cargo.toml': pack('one'), 'src/lib.rs': lib, ...Object.fromEntries(sources) });
  };

  test('a private name may occur once in a crate', () => {
    for (const kind of [
      'struct X;',
      'enum X {}',
      'trait X {}',
      'type X = u8;',
      'union X { a: u8 }',
      'pub(crate) struct X(u8);',
      'mod m { pub unsafe trait X {} }',
      'fn f() { struct X; }',
      'fn f<T: A>() -> impl B { type X = u8; }',
    ]) {
      const found = one(['struct X<T> { t: T }', kind]);
      assert.equal(found.length, 1, kind);
      assert.match(found[0], /^X occurs 2 times in one: src\/m0\.rs:1, src\/m1\.rs:1$/);
    }
  });

  test('names in tests, associated types, strings and attributes are left out', () => {
    for (const text of [
      '#[cfg(test)] mod tests { struct X; }',
      'impl<T> A for B<[u8; 4]> where T: C { type X = u8; fn f() {} type Y = u8; }',
      'trait A { type X; }',
      'unsafe impl A for B { type X = u8; }',
      '// struct X;',
      'const A: &str = "struct X;";',
      '#[doc = "x"] #[derive(X)] fn struct_x() {}',
      'fn f(union: u8) { let x = S { union, y: 1 }; }',
      'macro_rules! m { ($X:ident) => { struct $X; } }',
    ]) {
      assert.deepEqual(one(['struct X;', text]), [], text);
    }
    assert.deepEqual(
      check({
        'Cargo.toml': pack('one'),
        'src/lib.rs': '#[cfg(test)] mod tests; struct X;',
        'src/tests.rs': 'struct X;',
        'tests/a.rs': 'struct X;',
        'examples/a.rs': 'struct X;',
      }),
      [],
    );
  });

  const two = (first, second) => ({
    'one/Cargo.toml': pack('one'),
    'one/src/lib.rs': first,
    'two/Cargo.toml': pack('two'),
    'two/src/lib.rs': second,
  });

  test('a public name may occur once in the workspace', () => {
    assert.match(
      check(two('pub struct X;', '\npub enum X {}'))[0],
      /^X occurs 2 times in the workspace: one\/src\/lib\.rs:1, two\/src\/lib\.rs:2$/,
    );
    assert.deepEqual(check(two('pub struct X;', 'struct X;')), []);
    assert.deepEqual(check(two('pub struct X;', 'pub(crate) struct X; pub fn f() {} struct Y;')), []);
  });

  test('an exception excuses, and must be needed', () => {
    const exceptions = [{ name: 'X', crates: ['one', 'two'], reason: 'a test' }];
    assert.deepEqual(check(two('pub struct X;', 'pub struct X;'), exceptions), []);
    assert.match(check(two('pub struct X;', ''), exceptions)[0], /not needed/);
    assert.equal(
      check(two('pub struct X;', 'pub struct X;'), [{ name: 'X', crates: ['one'], reason: 'a test' }]).length,
      2,
    );
  });
});

describe('width', () => {
  const check = (path, text) => width.check(tree({ [path]: text }), everything).problems;
  const long = 'word '.repeat(21);

  test('a comment may have 100 columns', () => {
    assert.deepEqual(check('a.rs', `// ${'x'.repeat(97)}\n`), []);
    assert.deepEqual(check('a.rs', `// ${'ü'.repeat(97)}\n`), []);
    assert.deepEqual(check('a.rs', `// ${'x'.repeat(98)}\n`), ['a.rs:1: 101 columns']);
  });

  test('comments of every kind count', () => {
    const slashes = [`// ${long}`, `/**\n * ${long}\n */`, `f(); // ${long}`];
    for (const text of [...slashes, `//! ${long}`, `    /// ${long}`, `/*\n${long}\n*/`]) {
      assert.equal(check('a.rs', text).length, 1, text);
    }
    for (const path of ['a.ts', 'a.mjs']) {
      for (const text of slashes) assert.equal(check(path, text).length, 1, text);
    }
    for (const path of ['a.sh', 'a.toml']) {
      for (const text of [`# ${long}`, `a=1 # ${long}`]) assert.equal(check(path, text).length, 1, text);
    }
  });

  test('code and addresses may be wider', () => {
    assert.deepEqual(check('a.rs', `const A: &str = "${long} // ${long}";`), []);
    assert.deepEqual(check('a.toml', `a = "${long}"`), []);
    assert.deepEqual(check('a.mjs', `const a = '${long}';`), []);
    assert.deepEqual(check('a.rs', `// https://example.com/${'x'.repeat(100)}\n`), []);
    assert.equal(check('a.rs', `// See https://example.com/${'x'.repeat(100)} ${long}\n`).length, 1);
  });
});

describe('headers', () => {
  const check = (text) => headers.check(tree({ 'a.rs': text }), everything).problems;

  test('a file opens with //! and text', () => {
    assert.deepEqual(check('//! A file.\n'), []);
    for (const text of ['', '// A file.\n', '/// A file.\n', 'use a;\n//! A file.\n', '//!\n']) {
      assert.deepEqual(check(text), ['a.rs:1: does not open with //!'], text);
    }
  });
});

describe('reading Rust', () => {
  const kept = (text) =>
    withoutTests(scan(text).tokens)
      .map((token) => token.text)
      .join(' ');

  test('tokens', () => {
    const { tokens } = scan(
      `fn f<'a>(x: &'a str) { b'\\'' ; '\\u{1F600}'; r#type; 1.5e3; b"x"; br##"y"#"##; a::b }`,
    );
    const of = (kind) => tokens.filter((token) => token.kind === kind).map(({ text }) => text);
    assert.deepEqual(of('lifetime'), ["'a", "'a"]);
    assert.deepEqual(of('literal'), ["b'\\''", "'\\u{1F600}'", '1.5e3']);
    assert.deepEqual(of('string'), ['b"x"', 'br##"y"#"##']);
    assert.deepEqual(of('name'), ['fn', 'f', 'x', 'str', 'r#type', 'a', 'b']);
  });

  test('lines are counted through strings and comments', () => {
    const { tokens, comments } = scan('#!/usr/bin/env x\n"a\nb" /* c\nd */ e // f\ng');
    assert.deepEqual(
      tokens.map(({ text, line }) => [text, line]),
      [
        ['"a\nb"', 2],
        ['e', 4],
        ['g', 5],
      ],
    );
    assert.deepEqual(
      comments.map(({ line, lines }) => [line, lines]),
      [
        [3, 2],
        [4, 1],
      ],
    );
  });

  test('what only tests compile ends where it should', () => {
    for (const [text, rest] of [
      ['#[cfg(test)] mod t { a } b', 'b'],
      ['#[cfg(test)] mod t; b', 'b'],
      ['#[cfg(test)] use a::{b, c}; d', 'd'],
      ['#[cfg(test)] pub(crate) fn f(a: A<B, C>) -> Result<A, B> where A: B, C: D { e } g', 'g'],
      ['#[cfg(test)] impl<A, B> C for D where A: B, B: C { e } g', 'g'],
      ['#[cfg(test)] const A: [u8; 2] = [1, 2]; b', 'b'],
      ['#[cfg(test)] pub struct A(B, C); d', 'd'],
      ['#[cfg(test)] pub struct A { b: B } d', 'd'],
      ['#[cfg(test)] #[derive(A)] struct B; c', 'c'],
      ['#[derive(A)] #[cfg(test)] struct B; c', 'c'],
      ['#[tokio::test] async fn f() { a } b', 'b'],
      ['struct A { #[cfg(test)] b: B<C, D>, e: E }', 'struct A { e : E }'],
      ['A { #[cfg(test)] b: B { c }, e }', 'A { e }'],
      ['match a { #[cfg(test)] A => { b } C => d }', 'match a { C = > d }'],
      ['match a { #[cfg(test)] A(x) if x => f(x), C => d }', 'match a { C = > d }'],
      ['{ #[cfg(test)] let a = A { b }; c }', '{ c }'],
      ['{ #[cfg(test)] if a { b } c }', '{ c }'],
      ['#[cfg(unix)] mod t; #[cfg(not(test))] b', '# [ cfg ( unix ) ] mod t ; # [ cfg ( not ( test ) ) ] b'],
    ]) {
      assert.equal(kept(text), rest, text);
    }
  });
});

describe('the command', () => {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'lint.mjs');
  const run = (...args) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  const good = () => crate({ 'lib.rs': '//! A crate.\n' }).root;
  const bad = () => crate({ 'lib.rs': '//! What it is.\n', 'a/b.rs': '', 'a/c.rs': '' }).root;

  test('passes a good tree', () => {
    const { status, stdout } = run('--root', good(), '--only', 'circles,openings,names,width,headers');
    assert.equal(status, 0, stdout);
    assert.equal(stdout.match(/: ok: /g).length, 5);
  });

  test('fails a bad one, and names the check', () => {
    const { status, stdout } = run('--root', bad());
    assert.equal(status, 1);
    assert.match(stdout, /lint: openings: FAILED: 100\.0 %/);
    assert.match(stdout, /lint: circles: ok/);
  });

  test('runs only what it is asked for', () => {
    assert.equal(run('--root', bad(), '--only', 'circles').status, 0);
    assert.equal(run('--root', bad(), '--only', 'headers', '--under', 'docs').status, 0);
    assert.match(
      run('--root', bad(), '--only', 'headers', '--under', './src/a/').stdout,
      /2 of 2 Rust files/,
    );
  });

  test('refuses an unknown check or option', () => {
    assert.equal(run('--only', 'nothing').status, 2);
    assert.notEqual(run('--nothing').status, 0);
  });

  test('a deleted file and an ignored one are not read', () => {
    const { root } = tree({ '.gitignore': '/target/\n', 'target/a.rs': '', 'b.rs': '' });
    execFileSync('git', ['-C', root, 'add', '.']);
    rmSync(join(root, 'b.rs'));
    assert.deepEqual(new Tree(root).paths, ['.gitignore']);
  });

  test('help is the header of the script', () => {
    assert.match(run('--help').stdout, /^Checks what cargo does not[^]*--under FOLDER/);
  });
});
