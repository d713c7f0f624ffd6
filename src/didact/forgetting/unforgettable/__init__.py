"""Forgetting a task by random labels, and the study of how far that forgetting reaches."""

from didact.forgetting.unforgettable.method import RandomLabelForgetting
from didact.forgetting.unforgettable.problem import LabelTask, TasksSubject, yes_no_problem
from didact.forgetting.unforgettable.study import ForgettingGeneralization

__all__ = ["ForgettingGeneralization", "LabelTask", "RandomLabelForgetting", "TasksSubject", "yes_no_problem"]
