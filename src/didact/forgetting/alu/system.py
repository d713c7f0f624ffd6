"""The system that comes out: a language model whose answers pass through the agents before anybody sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from didact.core.errors import BadInput, NotApplicable
from didact.forgetting.alu.agents import Agents, AgentTrace
from didact.forgetting.alu.subjects import Subject
from didact.models.generation import respond
from didact.models.text_generation import HFGenerator
from didact.models.wrappers import LanguageWrapper, wrapper

if TYPE_CHECKING:
    from didact.forgetting.alu.method import AgenticForgetting


class TextSystem(LanguageWrapper):
    """Base of systems that take and give text: their model's logits say nothing about them and are not shown."""

    observable = False

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        raise NotApplicable(f"{type(self).__name__} takes and gives text: it has no logits. Call respond(prompts).")

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        raise NotApplicable(
            f"{type(self).__name__} takes and gives text; tokens would go unchecked. Call respond(prompts)."
        )

    def respond(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        """The answers to prompts, in their order."""
        raise NotImplementedError

    def plainly(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """What the untouched model answers."""
        return respond(self.base, self.tokenizer, prompts, max_new_tokens=max_new_tokens)


@wrapper("agents")
class AgentSystem(TextSystem):
    """An untouched model behind agents. `respond` answers many prompts, `answer` one, with its trace."""

    def __init__(self, base: PreTrainedModel, tokenizer: Any, method: AgenticForgetting) -> None:
        super().__init__(base, tokenizer)
        self.method = method
        self.own_answers = method.vanilla is None
        self.agents: Agents = method.agents(method.vanilla or HFGenerator(base, tokenizer))

    def respond(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        if not self.own_answers:
            return [self.agents.run(prompt, max_tokens=max_new_tokens).final for prompt in prompts]
        answers = self.plainly(prompts, max_new_tokens)  # in batches, which a generator cannot do
        return [self.agents.run(prompt, answer).final for prompt, answer in zip(prompts, answers, strict=True)]

    def answer(self, query: str, max_new_tokens: int = 64) -> AgentTrace:
        return self.agents.run(query, max_tokens=max_new_tokens)

    def with_subjects(self, subjects: Sequence[Subject]) -> AgentSystem:
        """The same model and agents with another list of subjects."""
        return AgentSystem(self.base, self.tokenizer, self.method.for_subjects(subjects))

    def options(self) -> dict[str, Any]:
        for role in ("vanilla", "auditor", "critic", "composer"):
            held = getattr(self.method, role)
            if held is not None and held.in_memory:
                raise BadInput(
                    f"The {role} {held.name} exists in memory only, so the system cannot be saved with it. Save the "
                    "method's settings, and put the system together again in code."
                )
        return {"method": self.method.settings}

    @classmethod
    def assemble(cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any) -> AgentSystem:
        from didact.forgetting.alu.method import AgenticForgetting

        return cls(parts["base"], tokenizer, AgenticForgetting(**options["method"]))  # type: ignore[arg-type]
