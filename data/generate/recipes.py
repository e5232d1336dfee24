"""What the corpus is made of: categories, Infinigen factories, seeds and counts."""

from dataclasses import dataclass
from hashlib import md5

PROGRAM = "infinigen-1.15.5"
FIRST_SEED = 10_000  # lower seeds belong to other sets
SEEDS_EACH = 1_000  # factories that share code repeat each other's designs under a common seed

CATEGORIES = {
    "02818832": "bed",
    "02871439": "bookshelf",
    "02933112": "cabinet",
    "03001627": "chair",
    "03636649": "lamp",
    "04256520": "sofa,couch,lounge",
    "04379243": "table",
}

COUNTS = {
    "03001627": {"ChairFactory": 100, "OfficeChairFactory": 24, "BarChairFactory": 16},
    "04379243": {
        "TableDiningFactory": 31,
        "CoffeeTableFactory": 16,
        "SideTableFactory": 10,
        "TableCocktailFactory": 15,
        "SimpleDeskFactory": 8,
        "SidetableDeskFactory": 5,
    },
    "04256520": {"SofaFactory": 45, "ArmChairFactory": 20},
    "03636649": {
        "DeskLampFactory": 15,
        "FloorLampFactory": 14,
        "ArcLampFactory": 18,
        "CeilingClassicLampFactory": 15,
    },
    "02818832": {"MadeBedFactory": 24, "BedFrameFactory": 11},
    "02871439": {
        "SimpleBookcaseFactory": 7,
        "LargeShelfFactory": 10,
        "CellShelfFactory": 9,
        "TriangleShelfFactory": 9,
    },
    "02933112": {"SingleCabinetFactory": 15, "KitchenCabinetFactory": 12, "TVStandFactory": 8},
}


@dataclass(frozen=True)
class Recipe:
    """`count` models of one category from one factory, with seeds from `first_seed` upward."""

    synset: str
    factory: str
    count: int
    first_seed: int

    def seeds(self) -> range:
        """Return the seeds to try, in order."""
        return range(self.first_seed, self.first_seed + SEEDS_EACH)

    def folder(self, seed: int) -> str:
        """Return where the model of this seed lies in a ShapeNetCore.v2 root."""
        return f"{self.synset}/{self.model_id(seed)}/models"

    def model_id(self, seed: int) -> str:
        """Return the 32 hex digits that name the model of this seed."""
        return md5(f"{self.factory}:{seed}:{PROGRAM}".encode()).hexdigest()


def recipes() -> list[Recipe]:
    """Return every recipe, each with a block of seeds of its own."""
    pairs = [(synset, name, n) for synset, row in COUNTS.items() for name, n in row.items()]
    return [
        Recipe(synset, name, n, FIRST_SEED + SEEDS_EACH * k)
        for k, (synset, name, n) in enumerate(pairs)
    ]
