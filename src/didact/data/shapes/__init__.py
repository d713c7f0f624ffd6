"""A generated world of labelled scenes: pictures with boxes, masks, captions, questions and relations."""

from didact.data.shapes.captions import Question, parse_caption
from didact.data.shapes.factors import OBJECT_FACTORS, SCENE_FACTORS, VALUES, SceneTable
from didact.data.shapes.render import draw_scenes
from didact.data.shapes.scenes import Scenes, shapes

__all__ = [
    "OBJECT_FACTORS",
    "SCENE_FACTORS",
    "VALUES",
    "Question",
    "SceneTable",
    "Scenes",
    "draw_scenes",
    "parse_caption",
    "shapes",
]
