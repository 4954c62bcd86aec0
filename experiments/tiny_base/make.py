"""Makes the tiny base: draws the corpus, trains tokenizer, VAE and VLM, measures them on unseen scenes, writes it all.

    python experiments/tiny_base/make.py --output outputs/tiny_base            # minutes on one H100, 16 CPU cores
    python experiments/tiny_base/make.py --output outputs/tiny_base --parts vae         # only the VAE, into that folder

The result is what ships as `theworld/tiny_base` (`theworld-tiny`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import corpus
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKLWan
from PIL import Image
from pretrain_vae import peak_signal_to_noise, pretrain_vae, reconstruct, set_latent_statistics
from pretrain_vlm import Corpus, DenseHeads, ReadOut, Recipe, TextCorpus, exact_answers, initialise, pretrain_vlm
from text_corpus import COLOUR_NUMBERS, KIND_NUMBERS, build_text
from tokenizer import train_tokenizer
from transformers import Gemma3ImageProcessorPil

from theworld.data.processor import TheWorldProcessor
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld

COMPARED = ("left", "right", "above", "below", "higher", "lower", "tall", "short", "wide", "thin", "big", "small", "")
"""Words that tell what a question compares; captions and lists have none of them."""

HELD_OUT_FIRST = 900_000
TOKENIZER_FIRST = 950_000
TEXT_HELD_OUT_FIRST = 9_000_000
MAX_SEQ_LENGTH = 256


def main() -> None:
    arguments = parse_arguments()
    started = time.time()
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    config = TheWorldConfig.preset("tiny")
    if "vlm" in arguments.parts or not (output / "processor_config.json").exists():
        make_processor(config, arguments).save_pretrained(output)
    train, held_out, asked = make_corpus(output, config, arguments)
    print(f"corpus of {len(train.length)} samples after {time.time() - started:.0f} s", flush=True)

    device = torch.device(arguments.device)
    measured: dict[str, object] = {"arguments": vars(arguments), "samples": len(train.length)}
    if "vae" in arguments.parts:
        measured |= run_vae(config, train, held_out, output, device, arguments)
        print(f"VAE done after {time.time() - started:.0f} s", flush=True)
    if "vlm" in arguments.parts:
        measured |= run_vlm(config, train, held_out, asked, output, device, arguments)
    measured |= {
        "seconds": time.time() - started,
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (output / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    print({k: v for k, v in measured.items() if "curve" not in k})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("vae", "vlm"),
        default=["vae", "vlm"],
        help="what to make; the VAE alone keeps the tokenizer it finds in the output folder",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=16, help="processes that draw scenes")
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--held_out_scenes", type=int, default=500)
    parser.add_argument("--tokenizer_scenes", type=int, default=1_000)
    parser.add_argument("--rows_per_scene", type=int, default=3)
    parser.add_argument("--vae_steps", type=int, default=40_000)
    parser.add_argument("--vlm_steps", type=int, default=12_000)
    parser.add_argument("--dense_steps", type=int, default=4_000, help="steps over which the dense loss fades out")
    parser.add_argument("--vae_seconds", type=float, default=None, help="cut the VAE's steps to what this time holds")
    parser.add_argument("--vlm_seconds", type=float, default=None, help="cut the VLM's steps to what this time holds")
    parser.add_argument("--batch_size", type=int, default=256, help="the VLM's")
    parser.add_argument("--text_rows", type=int, default=200_000, help="conversations without an image")
    parser.add_argument("--text_batch_size", type=int, default=128, help="of those, beside each batch with images")
    parser.add_argument("--read_out_layer", type=int, default=3, help="layers before the read-out of mentions")
    parser.add_argument("--vae_batch_size", type=int, default=128)
    parser.add_argument("--eager", action="store_true", help="train the VAE without torch.compile")
    parser.add_argument("--vlm_learning_rate", type=float, default=2e-3)
    parser.add_argument("--vae_learning_rate", type=float, default=2e-3)
    return parser.parse_args()


def make_processor(config: TheWorldConfig, arguments: argparse.Namespace) -> TheWorldProcessor:
    numbers = range(TOKENIZER_FIRST, TOKENIZER_FIRST + arguments.tokenizer_scenes)
    vocab_size = config.get_text_config().vocab_size
    texts = list(corpus.texts(arguments.seed, numbers, 128))  # here: a renderer belongs to one thread
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size)
    print(f"tokenizer: {len(tokenizer)} of {vocab_size} ids", flush=True)
    side = config.gemma_config.vision_config.image_size
    images = Gemma3ImageProcessorPil(size={"height": side, "width": side}, do_pan_and_scan=False)
    return TheWorldProcessor(
        tokenizer,
        images,
        num_image_tokens=config.gemma_config.mm_tokens_per_image,
        num_world_tokens=config.num_world_tokens,
        world_image_size=config.world_image_size,
    )


def make_corpus(
    output: Path, config: TheWorldConfig, arguments: argparse.Namespace
) -> tuple[corpus.CorpusArrays, corpus.CorpusArrays, list[list[str]]]:
    vision = config.gemma_config.vision_config
    recipe = corpus.Recipe(
        tokenizer_directory=str(output),
        seed=arguments.seed,
        image_size=128,
        rows_per_scene=arguments.rows_per_scene,
        max_turns=8,
        max_seq_length=MAX_SEQ_LENGTH,
        world_image_size=config.world_image_size,
        patches_per_side=vision.image_size // vision.patch_size,
    )
    train, _ = corpus.build(recipe, range(arguments.scenes), workers=arguments.workers)
    numbers = range(HELD_OUT_FIRST, HELD_OUT_FIRST + arguments.held_out_scenes)
    held_out, asked = corpus.build(recipe, numbers, workers=arguments.workers)
    return train, held_out, asked


def run_vae(
    config: TheWorldConfig,
    train: corpus.CorpusArrays,
    held_out: corpus.CorpusArrays,
    output: Path,
    device: torch.device,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    vae = AutoencoderKLWan.from_config(config.vae_config).to(device)
    frames, unseen = torch.from_numpy(train.world).to(device), torch.from_numpy(held_out.world).to(device)
    curve = pretrain_vae(
        vae,
        frames,
        steps=arguments.vae_steps,
        max_seconds=arguments.vae_seconds,
        batch_size=arguments.vae_batch_size,
        learning_rate=arguments.vae_learning_rate,
        seed=arguments.seed,
        compiled=device.type == "cuda" and not arguments.eager,
    )
    vae.eval().to(torch.bfloat16).float()  # what is measured below is what ships
    set_latent_statistics(vae, frames[:4096])
    shown = reconstruct(vae, unseen[:512])
    save_reconstructions(unseen[:16], shown[:16], output / "reconstruction.png")
    vae.to(torch.bfloat16).save_pretrained(output / "vae")
    return {
        "vae_parameters": sum(p.numel() for p in vae.parameters()),
        "vae_psnr_db": peak_signal_to_noise(unseen[:512], shown),
        "vae_curve": curve,
    }


def run_vlm(
    config: TheWorldConfig,
    train: corpus.CorpusArrays,
    held_out: corpus.CorpusArrays,
    asked: list[list[str]],
    output: Path,
    device: torch.device,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    base = TheWorldConfig.preset("tiny", enable_world=False)
    model = TheWorld(base)
    initialise(model, seed=arguments.seed)
    model.to(device)
    hidden = config.gemma_config.vision_config.hidden_size
    heads = DenseHeads(
        hidden,
        num_kinds=len(KIND_NUMBERS) + 1,
        num_colours=len(COLOUR_NUMBERS) + 1,
        num_regions=corpus.MAX_REGIONS,
    ).to(device)
    read_out = ReadOut(config.hidden_size, num_kinds=len(KIND_NUMBERS) + 1, num_colours=len(COLOUR_NUMBERS) + 1).to(
        device
    )
    if device.type == "cuda":
        for layer in [*model.gemma.model.language_model.layers, *model.gemma.model.vision_tower.encoder.layers]:
            layer.forward = torch.compile(layer.forward, dynamic=False)  # the module's hooks stay outside
    text, held_out_text, asked_in_text = make_text(output, arguments)
    curve = pretrain_vlm(
        model,
        heads,
        read_out,
        on_device(train, device),
        text_on_device(text, device),
        Recipe(
            steps=arguments.vlm_steps,
            max_seconds=arguments.vlm_seconds,
            dense_steps=arguments.dense_steps,
            batch_size=arguments.batch_size,
            text_batch_size=arguments.text_batch_size,
            learning_rate=arguments.vlm_learning_rate,
            read_out_layer=arguments.read_out_layer,
            seed=arguments.seed,
        ),
    )
    model.gemma.to(torch.bfloat16).save_pretrained(output)  # what is measured below is what ships
    torch.compiler.set_stance("force_eager")
    right = exact_answers(model.float().eval(), on_device(held_out, device), batch_size=arguments.batch_size)
    right_in_text = exact_answers(model, text_on_device(held_out_text, device), batch_size=arguments.batch_size)
    return {
        "vlm_parameters": sum(p.numel() for p in model.parameters()),
        "exact_answers": accuracy_by_question(asked, right),
        "exact_text_answers": accuracy_by_question(asked_in_text, right_in_text),
        "vlm_curve": curve,
    }


def make_text(
    output: Path, arguments: argparse.Namespace
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[list[str]]]:
    """Training and held-out conversations without images, and the questions of the latter."""
    held_out_numbers = range(TEXT_HELD_OUT_FIRST, TEXT_HELD_OUT_FIRST + 2_000)
    same = {"max_seq_length": MAX_SEQ_LENGTH, "workers": arguments.workers}
    train, _ = build_text(str(output), arguments.seed, range(arguments.text_rows), **same)
    held_out, asked = build_text(str(output), arguments.seed, held_out_numbers, **same)
    return train, held_out, asked


def text_on_device(arrays: dict[str, np.ndarray], device: torch.device) -> TextCorpus:
    return TextCorpus(**{key: torch.from_numpy(value).to(device) for key, value in arrays.items()})


def on_device(arrays: corpus.CorpusArrays, device: torch.device) -> Corpus:
    return Corpus(**{f.name: torch.from_numpy(getattr(arrays, f.name)).to(device) for f in fields(Corpus)})


def accuracy_by_question(asked: list[list[str]], right: list[list[bool]]) -> dict[str, tuple[float, int]]:
    """Question form → share of exactly right answers, and how many."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for questions, answers in zip(asked, right, strict=True):
        for question, answer in zip(questions, answers, strict=True):
            outcomes[question_form(question)].append(answer)
    return {form: (float(np.mean(found)), len(found)) for form, found in sorted(outcomes.items())}


def question_form(question: str) -> str:
    """The first two words of the question itself; of a comparison what it compares."""
    question = question.rpartition(". ")[2]
    if " or " in question or " and " in question or question.count("Region") == 2:
        return "Compares: " + next(word for word in COMPARED if word in question)
    if question.startswith("Is Region"):
        return "Is it a kind?" if question.split()[3] in ("a", "an") else "Is it a color?"
    return " ".join(question.split()[:2])


def save_reconstructions(frames: torch.Tensor, reconstruction: torch.Tensor, path: Path) -> None:
    """Originals above, reconstructions below, three times enlarged."""
    rows = [torch.cat(list(images.cpu()), dim=2) for images in (frames, reconstruction)]
    picture = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    image = Image.fromarray(picture)
    image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
