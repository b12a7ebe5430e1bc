"""The implementations that `benchmarks/hogwild.py` compares compute the same thing."""

import pytest
from support.tiny_llama import write_tiny_llama


def test_all_implementations_sample_one_distribution(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra [local] is not installed")
    from hogwild import PutTogether, ReferenceWorkers, blocks_of
    from reason.serving.local.config import ModelConfig
    from reason.serving.local.model import Decoder
    from reason.serving.local.shared_cache import SharedCacheAttention, WorkerChunk
    from reason.serving.local.weights import WeightReader

    directory = tmp_path / "tiny"
    write_tiny_llama(directory)
    decoder = Decoder(ModelConfig.from_directory(directory), WeightReader(directory), "fp32")
    reference = ReferenceWorkers(directory, torch.float32)
    with torch.inference_mode():
        for workers in (1, 2, 4):
            views = [blocks_of(decoder, 64, workers, 4) for _ in range(2)]
            cache = reference.open(64, workers)
            for view in views:  # the same keys and values in all of them
                for number, block in enumerate(_each(view)):
                    for layer, kv in enumerate(block.kv):
                        count = cache.blocks[layer][number].shape[3]
                        kv[:, :, :count] = cache.blocks[layer][number][:, 0]
            for _ in range(3):
                expected = reference.step(cache)
                for view, plan in zip(views, (SharedCacheAttention, PutTogether), strict=True):
                    feeds = [WorkerChunk(blocks, [5]) for blocks in view]
                    arguments = (decoder.config, decoder.rotary, feeds)
                    made = plan(*arguments)
                    got = decoder.forward_rows([5] * workers, made, range(workers))
                    assert torch.allclose(torch.as_tensor(got), expected, atol=1e-4)


def _each(views):
    """The blocks of all views: the history, then each worker's own."""
    return [views[0][0], *(view[-1] for view in views)]
