"""The floor under every prompt, which no setting lifts: text that sexualises minors is refused.

The gateway, the renderers and the enhancer all keep it, so that whoever calls one of them directly meets it too.

These are rules over word lists. They understand nothing: they know neither irony nor context, they refuse some prompts
that mean no harm (children beside a nude statue), and whoever tries long enough finds words that are not on a list. A
moderation endpoint at the gateway is the stronger choice; the floor is what holds without one.

How a text is judged:

1. It is folded (`folding`): one width, one case, no accents, nothing invisible, look-alike letters as Latin ones,
   simplified characters for traditional ones.
2. Its words are read in several ways (`words`): digits and signs as the letters that they stand for, stretched letters
   shortened, letters that are spaced apart joined, words that are broken in two or written in one.
3. Terms are found (`lexicon`, `english`, `chinese`), and ages under 18 and school grades (`ages`). In English by whole
   words, so that Essex and assassin are nobody's business; in Chinese anywhere, with guards. What harmless phrases say
   with the same words (kid gloves, nude lipstick, naked mole-rat) is excused.
4. The rules (`floor`) judge what stands together:

   - `outright`: a term that has no other meaning.
   - `minor_explicit`: a minor and something explicit, anywhere in the same text.
   - `minor_suggestive`: a minor and something suggestive, within some ten words.
   - `perhaps_minor_explicit`: somebody who may be a minor and something explicit, within some ten words.
   - `adults_excluded`: an explicit prompt whose negative prompt excludes adults.

A negation in a prompt changes nothing, since text encoders hardly read it: "no nude child" is refused.

A negative prompt names what is not to be seen, and careful users exclude just this: "nude, nsfw, child, bad anatomy"
passes. It is judged by what it says in itself: it is taken for a list, whose items end with a comma, a semicolon, a bar
or a line, and each item is judged alone, without the `outright` terms, which exclude nothing but themselves. An item
that puts a minor and something sexual together is refused wherever it stands, since samplers turn signs around. And a
negative prompt may not steer an explicit prompt away from adults.

All of it takes time that grows with the text and not faster: for 10,000 characters some ten milliseconds, and tenths of
a second where every other word is a term. A server of many users judges off its event loop.
"""

from ourvidz_serving.prompt_floor.floor import Reading, floor_violation, negative_floor_violation, read
from ourvidz_serving.prompt_floor.lexicon import EXPLICIT, Group

__all__ = ["EXPLICIT", "Group", "Reading", "floor_violation", "negative_floor_violation", "read"]
