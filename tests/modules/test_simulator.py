import pytest
import torch

from agent.agent import Agent
from agent.imagination import Imagination
from agent.live import live
from agent.modules import Modules
from modules import chance
from modules.actor.actor import Actor
from modules.actor.beam import Beam
from modules.actor.policy import Categorical
from modules.configurator.fixed import Fixed
from modules.cost.cost import Cost
from modules.cost.critic import ActionCritic, Critic
from modules.memory.associative import Associative
from modules.memory.ring import Ring
from modules.messages import ConfigError
from modules.perception.pixels import SmallPixels
from modules.world_model.simulator import Clairvoyant, Fair
from worlds.make import make_world
