"""Log-mel features and SpecAugment, for encoders that are trained here (Whisper has its own features)."""

import torch
from torch import Tensor, nn

SMALLEST_POWER = 1e-10


def frames_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True inside."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LogMel(nn.Module):
    """Natural-log mel energies, each band's mean over the utterance removed, divided by 4.

    The mean removal cancels channel and level; the constant brings the values near unit variance, so that no
    statistics of the corpus are needed. Frames lie wholly inside the signal: neighbours in a batch change nothing.
    """

    def __init__(self, n_mels: int = 80, fs: int = 16000, n_fft: int = 512, win_length: int = 400,
                 hop_length: int = 160, fmin: float = 20.0, fmax: float = 7600.0) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks  # late: importing torchaudio costs a second

        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        self.output_size = n_mels
        filters = melscale_fbanks(n_fft // 2 + 1, fmin, fmax, n_mels, fs)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """speech: (B, S) in [-1, 1]; lengths: (B,) samples. Returns features (B, T, n_mels), lengths (B,) frames."""
        if speech.size(1) < self.win_length:
            speech = nn.functional.pad(speech, (0, self.win_length - speech.size(1)))
        windows = speech.unfold(1, self.win_length, self.hop_length) * self.window  # (B, S) -> (B, T, win)
        power = torch.fft.rfft(windows, n=self.n_fft).abs().square()
        mel = (power @ self.filters).clamp(min=SMALLEST_POWER).log()
        frames = ((lengths - self.win_length).clamp(min=0) // self.hop_length) + 1
        inside = frames_mask(frames, mel.size(1)).unsqueeze(-1)
        mean = (mel * inside).sum(1, keepdim=True) / frames[:, None, None]
        return (mel - mean) * inside / 4.0, frames


class SpecAugment(nn.Module):
    """Sets random bands and stretches of time to 0 (the features' mean), in training, from `start_step` on.

    start_step: number of training batches that are seen clean first; a small encoder must find the words before it
        is made harder for it.
    """

    def __init__(self, freq_masks: int = 2, freq_width: int = 8, time_masks: int = 2, time_width: int = 12,
                 start_step: int = 0) -> None:
        super().__init__()
        self.freq_masks, self.freq_width = freq_masks, freq_width
        self.time_masks, self.time_width = time_masks, time_width
        self.start_step = start_step
        # Kept in checkpoints so that a resumed training goes on where it was; float, since averaging sums integers.
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features: (B, T, F); lengths: (B,). Returns the masked copy in training, the features otherwise."""
        if not self.training:
            return features
        self.steps += 1
        if self.steps <= self.start_step:
            return features
        bands = self._stripes(torch.full_like(lengths, features.size(2)), features.size(2),
                              self.freq_masks, self.freq_width)
        times = self._stripes(lengths, features.size(1), self.time_masks, self.time_width)
        return features.masked_fill(bands[:, None, :] | times[:, :, None], 0.0)

    @staticmethod
    def _stripes(lengths: Tensor, size: int, count: int, width: int) -> Tensor:
        """`count` stretches of 0 to `width` places, anywhere in the first `lengths` (B,). Returns (B, size) bool."""
        shape = (lengths.size(0), count, 1)
        widths = torch.randint(0, width + 1, shape, device=lengths.device)
        places = (lengths[:, None, None] - widths).clamp(min=0) + 1
        starts = (torch.rand(shape, device=lengths.device) * places).long()
        index = torch.arange(size, device=lengths.device)
        return ((index >= starts) & (index < starts + widths)).any(1)  # (B, count, size) -> (B, size)
