"""Agentic forgetting (four text agents around an untouched model) and the systems it is compared with."""

from didact.forgetting.alu.agents import Agents, AgentTrace, State
from didact.forgetting.alu.baselines import InContextUnlearning, PromptFilter, SingleAgent
from didact.forgetting.alu.method import AgenticForgetting
from didact.forgetting.alu.probes import Probe, harder, leak_rates
from didact.forgetting.alu.problem import EntangledProblem
from didact.forgetting.alu.prompts import Prompts
from didact.forgetting.alu.subjects import Subject
from didact.forgetting.alu.system import AgentSystem

__all__ = [
    "AgentSystem",
    "AgentTrace",
    "AgenticForgetting",
    "Agents",
    "EntangledProblem",
    "InContextUnlearning",
    "Probe",
    "PromptFilter",
    "Prompts",
    "SingleAgent",
    "State",
    "Subject",
    "harder",
    "leak_rates",
]
