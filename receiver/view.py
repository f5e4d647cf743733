"""The picture inside the window: conversion for the screen, aspect ratio, split view, text on top. Imports Qt."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt

from receiver.picture import DecodedPicture
from shared.picture import bgra_from_i420

_DEAR_MS = 12.0  # drawing that takes longer does without smooth scaling
_DIM = QtGui.QColor(0, 0, 0, 160)


def compose(picture: DecodedPicture, split: bool = False) -> NDArray[np.uint8]:
    """What the window shows of a picture: uint8 [H, W, 4], B G R A.

    With `split` the left half is the decoded picture and the right half the restored one, cut at W // 2.
    """
    if not split or picture.restored is None:
        return bgra_from_i420(picture.visible)
    pixels = bgra_from_i420(picture.i420)
    half = picture.width // 2
    pixels[:, half:] = bgra_from_i420(picture.restored)[:, half:]
    return pixels


def image_over(pixels: NDArray[np.uint8]) -> QtGui.QImage:
    """A QImage over C-contiguous uint8 [H, W, 4], not a copy: keep `pixels` for as long as the image."""
    height, width = pixels.shape[:2]
    return QtGui.QImage(pixels.data, width, height, 4 * width, QtGui.QImage.Format.Format_RGB32)


def fit(width: int, height: int, area: QtCore.QRect) -> QtCore.QRect:
    """The largest rectangle with the aspect ratio `width` : `height` in the middle of `area`."""
    size = QtCore.QSize(width, height).scaled(area.size(), Qt.AspectRatioMode.KeepAspectRatio)
    result = QtCore.QRect(QtCore.QPoint(0, 0), size)
    result.moveCenter(area.center())
    return result


class PictureView(QtWidgets.QWidget):
    """Paints one picture with its aspect ratio kept, black around it, text over it."""

    painted = QtCore.Signal(object)
    """Emitted with the picture when it has been painted for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.picture: DecodedPicture | None = None
        self.split = False
        self.message = ""
        """Centred, over a dimmed picture; empty during a call."""
        self.notice = ""
        """At the top, for what a key just did."""
        self.figures: list[tuple[str, str]] = []
        """Names and values at the top left; empty for none."""
        self.fresh = False
        """Whether `painted` is still to be emitted for `picture`."""
        self._pixels: NDArray[np.uint8] | None = None
        self._image: QtGui.QImage | None = None
        self._draw_ms = 0.0
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setMinimumSize(160, 90)

    def show_picture(self, picture: DecodedPicture) -> None:
        """Paint this one next; it is converted only when it really is painted."""
        self.picture, self.fresh = picture, True
        self._image = None
        self.update()

    def set_split(self, split: bool) -> None:
        """Decoded | restored, or what is visible alone."""
        self.split = split
        self._image = None
        self.update()

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Qt asks for the contents."""
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.black)
        if self.picture is not None:
            target = fit(*self.picture.display_size, self.rect())
            self._paint_picture(painter, target)
            if self.split:
                self._paint_labels(painter, target, self.picture.restored is not None)
            if self.message:
                painter.fillRect(target, _DIM)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        if self.message:
            self._paint_message(painter)
        if self.figures:
            _paint_figures(painter, self.figures, self.rect())
        if self.notice:
            _pill(painter, self.notice, QtCore.QPoint(self.rect().center().x(), 12), Qt.AlignmentFlag.AlignHCenter)
        painter.end()
        if self.fresh:
            self.fresh = False
            self.painted.emit(self.picture)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Another size may be cheaper to draw: measure anew."""
        self._draw_ms = 0.0
        super().resizeEvent(event)

    def _paint_picture(self, painter: QtGui.QPainter, target: QtCore.QRect) -> None:
        assert self.picture is not None
        if self._image is None:
            self._pixels = compose(self.picture, self.split)
            self._image = image_over(self._pixels)
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform, self._draw_ms < _DEAR_MS)
        start = time.perf_counter()
        painter.drawImage(target, self._image)
        if self._draw_ms < _DEAR_MS:  # once too dear, it stays off until the size changes
            self._draw_ms += 0.1 * ((time.perf_counter() - start) * 1e3 - self._draw_ms)

    def _paint_labels(self, painter: QtGui.QPainter, target: QtCore.QRect, restored: bool) -> None:
        middle = target.left() + target.width() // 2
        painter.fillRect(middle, target.top(), 1, target.height(), QtGui.QColor(255, 255, 255, 200))
        bottom = target.bottom() - 10
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        below = Qt.AlignmentFlag.AlignBottom
        _pill(painter, "decoded", QtCore.QPoint(middle - 10, bottom), right | below)
        text = "restored" if restored else "not restored"
        _pill(painter, text, QtCore.QPoint(middle + 11, bottom), left | below)

    def _paint_message(self, painter: QtGui.QPainter) -> None:
        font = QtGui.QFont(self.font())
        font.setPointSizeF(font.pointSizeF() * 1.4)
        painter.setFont(font)
        painter.setPen(QtGui.QColor(230, 230, 230))
        room = self.rect().adjusted(16, 16, -16, -16)
        painter.drawText(room, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self.message)


def _paint_figures(painter: QtGui.QPainter, figures: list[tuple[str, str]], area: QtCore.QRect) -> None:
    """Two columns on a dark ground, smaller where `area` has no room for them at the font's own size."""
    metrics = painter.fontMetrics()
    names = max(metrics.horizontalAdvance(name) for name, _ in figures)
    values = max(metrics.horizontalAdvance(value) for _, value in figures)
    line = metrics.lineSpacing()
    width, height = names + values + 36, len(figures) * line + 16
    scale = min(1.0, (area.width() - 16) / width, (area.height() - 16) / height)
    if scale <= 0:
        return
    painter.save()
    painter.translate(8, 8)
    painter.scale(scale, scale)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QtGui.QColor(0, 0, 0, 170))
    painter.drawRoundedRect(0, 0, width, height, 6, 6)
    for index, (name, value) in enumerate(figures):
        base = 8 + index * line + metrics.ascent()
        painter.setPen(QtGui.QColor(160, 168, 178))
        painter.drawText(12, base, name)
        painter.setPen(QtGui.QColor(235, 235, 235))
        painter.drawText(24 + names, base, value)
    painter.restore()


def _pill(painter: QtGui.QPainter, text: str, at: QtCore.QPoint, align: Qt.AlignmentFlag) -> None:
    """Small text on a dark rounded ground, its edge or middle at `at`, as `align` says."""
    box = painter.fontMetrics().boundingRect(text).adjusted(-8, -4, 8, 4)
    box.moveTopLeft(at)
    if align & Qt.AlignmentFlag.AlignRight:
        box.moveRight(at.x())
    if align & Qt.AlignmentFlag.AlignHCenter:
        box.moveLeft(at.x() - box.width() // 2)
    if align & Qt.AlignmentFlag.AlignBottom:
        box.moveBottom(at.y())
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QtGui.QColor(0, 0, 0, 170))
    painter.drawRoundedRect(box, 6, 6)
    painter.setPen(QtGui.QColor(235, 235, 235))
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
