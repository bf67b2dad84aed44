"""The tokens that a call used.

Token buckets are disjoint inside their total: `prompt_tokens` holds uncached text, cache reads, cache writes and audio;
`completion_tokens` holds text, reasoning and audio.
"""

from __future__ import annotations

from dataclasses import dataclass

from vital_tracking.core.sanitize import MAX_TOKENS, token_count


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one call. Buckets are disjoint parts of their total.

    Of `prompt_tokens`: `cache_read_tokens`, `cache_write_tokens` and `audio_input_tokens`; the rest is plain text.
    `cache_write_1h_tokens` is the part of the cache writes that is kept an hour. Of `completion_tokens`: `reasoning_tokens` and
    `audio_output_tokens`.

    `estimated`: the counts were not reported. `notes`: what had to be mended, as short fixed words.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    estimated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def reported(
        cls,
        *,
        input_tokens: object,
        output_tokens: object,
        cache_read: object = 0,
        cache_write: object = 0,
        cache_write_1h: object = 0,
        reasoning: object = 0,
        audio_input: object = 0,
        audio_output: object = 0,
    ) -> TokenUsage | None:
        """Build disjoint buckets from counts as a provider reports them; None where both totals are unusable.

        `input_tokens` and `output_tokens` are the totals; `cache_read`, `cache_write`, `cache_write_1h` and `audio_input` the
        details of the one, `reasoning` and `audio_output` of the other. What is no count is taken as none, and noted.

        The details are parts of their total. Where they exceed it they cannot be: then they stand beside it, as Amazon
        Bedrock has reported them (input 3 beside 13,216 read from the cache), and are added.
        """
        notes: list[str] = []

        def part(value: object) -> int:
            if value is None:
                return 0
            number = token_count(value)
            if number is None:
                notes.append("invalid_token_detail")
                return 0
            return number

        prompt, completion = token_count(input_tokens), token_count(output_tokens)
        if prompt is None and completion is None:
            return None
        if prompt is None or completion is None:
            notes.append("token_total_missing")
        prompt, completion = prompt or 0, completion or 0
        read, write, write_1h = part(cache_read), part(cache_write), part(cache_write_1h)
        write = max(write, write_1h)
        thought, heard, said = part(reasoning), part(audio_input), part(audio_output)
        if read + write > prompt:
            prompt += read + write
            notes.append("cache_beside_input")
        if thought > completion:
            completion += thought
            notes.append("reasoning_beside_output")
        if heard > prompt - read - write:
            heard = prompt - read - write  # cached audio is counted as cached
            notes.append("audio_overlaps_cache")
        if said > completion - thought:
            said = completion - thought
            notes.append("audio_overlaps_reasoning")
        return cls(prompt, completion, read, write, write_1h, thought, heard, said, notes=tuple(dict.fromkeys(notes)))


def estimate_tokens(size: int) -> int:
    """A rough token count of a text for which none was reported: a token for every four bytes of UTF-8, rounded up.

    Four characters a token is the rule of thumb that OpenAI and Anthropic publish for English; bytes instead of characters
    keep it near one token a character for Chinese or Japanese.
    """
    return min(-(-size // 4), MAX_TOKENS)
