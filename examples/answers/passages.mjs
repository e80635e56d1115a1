// The built-in answerer. It understands nothing: it searches this project's documents for the
// words of the question, and gives the best passage word by word.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const root = new URL('../../', import.meta.url);
/** Wait before each word, in milliseconds. */
const PACE = Number(process.env.PACE ?? 60);
/** A passage ends with the paragraph that has this word. */
const LENGTH = 60;

const common = new Set(
  `a about all am an and any are as at be by can could did do does for from get give has have how i if in into is
  it its me my no not of on one or our please so tell than that the their them then there this to us use was we
  what when where which who why will with would you your`.split(/\s+/),
);

/** Returns the words that say what a text is about, without their usual endings. */
const terms = (text) =>
  (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])
    .filter((word) => !common.has(word))
    .map((word) => word.replace(/(?<=...)(?:ing|ed|es|s|e)$/, ''));

const documents = ['README.md', ...readdirSync(new URL('docs/', root)).map((name) => `docs/${name}`)];
const sections = documents.filter((name) => name.endsWith('.md')).flatMap(sectionsOf);
const averageLength = sections.reduce((sum, { length }) => sum + length, 0) / sections.length;

export const source = `${sections.length} sections of this project's documents`;

export async function* words(question, signal) {
  for (const word of answer(question).match(/\s*\S+/g)) {
    await pause(PACE, undefined, { signal });
    yield word;
  }
}

/** Splits a document at its headings. Leaves out tables, the targets of links, and marks. */
function sectionsOf(file) {
  const text = readFileSync(new URL(file, root), 'utf8')
    // In code that is indented, `#` begins no heading, and an empty line ends no paragraph.
    .replace(/^```.*\n([^]*?)^```$/gm, (_, code) => code.trim().replace(/^/gm, '    '))
    .replace(/\[([^\]]+)\]\([^)]*\)/g, '$1')
    .replace(/^\|.*\n|\*\*/gm, '')
    .replace(/(?<=\s)\*(\w+)\*/g, '$1')
    // A paragraph is a line.
    .replace(/(?<=^\S.*)\n(?=[^\s-])/gm, ' ');
  return text
    .split(/^#+ /m)
    .map((section) => section.trim().split(/\n{2,}/))
    .filter(({ length }) => length > 1)
    .map(([title, ...paragraphs]) => {
      // A section is about what its title names.
      const all = terms([title, title, title, ...paragraphs].join(' '));
      const counts = new Map();
      for (const term of all) counts.set(term, (counts.get(term) ?? 0) + 1);
      return { file, title, paragraphs, counts, length: all.length };
    });
}

/** Finds a passage by BM25: a term says more if fewer sections have it, and they are shorter. */
function answer(question) {
  const asked = [...new Set(terms(question))].map((term) => {
    const found = sections.filter(({ counts }) => counts.has(term)).length;
    return { term, weight: Math.log(1 + (sections.length - found + 0.5) / (found + 0.5)) };
  });
  const score = ({ counts, length }) =>
    asked.reduce((sum, { term, weight }) => {
      const count = counts.get(term) ?? 0;
      return sum + (weight * count * 2.2) / (count + 0.3 + (0.9 * length) / averageLength);
    }, 0);
  const [best] = sections.toSorted((a, b) => score(b) - score(a));
  if (score(best) === 0) return 'The documents of this project have no word of your question.';
  const { file, title, paragraphs } = best;
  const matches = (paragraph) => {
    const found = new Set(terms(paragraph));
    return asked.reduce((sum, { term, weight }) => sum + (found.has(term) ? weight : 0), 0);
  };
  const [first] = paragraphs.toSorted((a, b) => matches(b) - matches(a));
  let passage = '';
  for (const paragraph of paragraphs.slice(paragraphs.indexOf(first))) {
    passage += `${paragraph}\n\n`;
    if (passage.split(/\s+/).length > LENGTH) break;
  }
  return `${passage}From ${file}, “${title}”.`;
}
