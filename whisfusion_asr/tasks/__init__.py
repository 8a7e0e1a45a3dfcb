"""The ESPnet plug: the only room that imports espnet2 (late, it costs seconds)."""


def register() -> None:
    """Offer our decoder among the choices of ESPnet's own ASRTask.

    ESPnet trains decoders left to right; a bidirectional one would see the token it predicts. So the model that
    computes the loss is registered with the decoder, and the two are chosen together. In a script of your own:

        import whisfusion_asr.tasks
        whisfusion_asr.tasks.register()        # before ASRTask builds its parser, in every process
        from espnet2.tasks.asr import ASRTask
        ASRTask.main()                         # python train.py --config train.yaml ...

    with this in train.yaml, beside any encoder of ESPnet:

        model: masked_diffusion
        model_conf: {ctc_weight: 0.3, mask_ratio: [0.0, 1.0]}
        decoder: diffusion
        decoder_conf: {size: 256, num_blocks: 6, attention_heads: 4, ffn_size: 1024}

    The data types `audio` and `states` come with them.
    """
    from whisfusion_asr.tasks.third_party import register_choices

    register_choices()
