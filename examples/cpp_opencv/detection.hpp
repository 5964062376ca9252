// What comes before and after the network, as in `predict.py`; docs/onnx.md states each step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

struct Model {  // what the file's metadata say
    std::vector<std::string> names;
    cv::Size size;
    float score, nms_iou, vote_iou;
    int max_detections, voters;
};

struct Letterbox {
    cv::Mat canvas;
    int left, top;
    float x_factor, y_factor;  // image to input pixels
};

struct Detection {
    float score;
    int label;
    cv::Vec4f box;  // x1, y1, x2, y2
};

struct Options {
    std::string model, out;
    std::vector<std::string> images;
    float score = -1;
};

inline Options parse(int count, char **words) {
    Options options;
    for (int i = 1; i < count; i++) {
        const std::string word = words[i];
        if (word == "--score" && i + 1 < count) options.score = std::stof(words[++i]);
        else if (word == "--out" && i + 1 < count) options.out = words[++i];
        else if (options.model.empty()) options.model = word;
        else options.images.push_back(word);
    }
    if (options.images.empty())
        throw std::runtime_error("usage: detect MODEL.onnx IMAGE ... [--score S] [--out FOLDER]");
    return options;
}

// `text` returns the metadata of a key
inline Model describe(const std::function<std::string(const char *)> &text, const Options &options) {
    std::string json = "{";
    for (const char *key : {"names", "imgsz", "postprocessing"})
        json += (json.size() > 1 ? ",\"" : "\"") + std::string(key) + "\":" + text(key);
    cv::FileStorage file(json + "}", cv::FileStorage::READ | cv::FileStorage::MEMORY | cv::FileStorage::FORMAT_JSON);
    Model model;
    file["names"] >> model.names;
    model.size = cv::Size(int(file["imgsz"][1]), int(file["imgsz"][0]));
    const cv::FileNode limits = file["postprocessing"];
    model.score = options.score < 0 ? float(limits["score"]) : options.score;
    model.nms_iou = float(limits["nms_iou"]);
    model.vote_iou = float(limits["vote_iou"]);
    model.max_detections = int(limits["max_detections"]);
    model.voters = int(limits["voters"]);
    return model;
}

// Scales the width, bilinear with antialiasing, in PyTorch's 16-bit fixed point
inline cv::Mat shrink(const cv::Mat &image, int width) {
    const double ratio = double(image.cols) / width, support = std::max(1.0, ratio);
    std::vector<std::vector<double>> weights(width);
    std::vector<int> first(width);
    double largest = 0;
    for (int i = 0; i < width; i++) {
        const double center = (i + 0.5) * ratio;
        first[i] = std::max(0, int(std::floor(center - support)));
        const int last = std::min(image.cols, int(std::ceil(center + support)));
        for (int j = first[i]; j < last; j++)
            weights[i].push_back(std::max(0.0, 1 - std::abs(j + 0.5 - center) / support));
        const double sum = std::accumulate(weights[i].begin(), weights[i].end(), 0.0);
        for (double &weight : weights[i]) largest = std::max(largest, weight /= sum);
    }
    const int bits = std::min(22, int(std::floor(std::log2(32767.5 / largest))));
    for (auto &row : weights)
        for (double &weight : row) weight = std::floor(weight * (1 << bits) + 0.5);
    cv::Mat result(image.rows, width, CV_8UC3);
    for (int y = 0; y < image.rows; y++)
        for (int i = 0; i < width; i++) {
            cv::Vec3d sum = cv::Vec3d::all(1 << (bits - 1));
            const cv::Vec3b *pixels = image.ptr<cv::Vec3b>(y) + first[i];
            for (size_t j = 0; j < weights[i].size(); j++)
                for (int c = 0; c < 3; c++) sum[c] += weights[i][j] * pixels[j][c];
            for (int c = 0; c < 3; c++)
                result.at<cv::Vec3b>(y, i)[c] = uchar(std::min(255, int(sum[c]) >> bits));
        }
    return result;
}

inline Letterbox letterbox(const cv::Mat &image, cv::Size size) {
    const double scale = std::min(double(size.height) / image.rows, double(size.width) / image.cols);
    const int width = std::max(1, int(std::nearbyint(image.cols * scale)));
    const int height = std::max(1, int(std::nearbyint(image.rows * scale)));
    cv::Mat resized;
    if (2 * height > image.rows && 2 * width > image.cols) {
        cv::resize(image, resized, cv::Size(width, height), 0, 0, cv::INTER_LINEAR);
    } else {
        resized = shrink(image, width).t();
        resized = shrink(resized, height).t();
    }
    Letterbox result;
    result.left = (size.width - width) / 2;
    result.top = (size.height - height) / 2;
    result.x_factor = float(double(width) / image.cols);
    result.y_factor = float(double(height) / image.rows);
    result.canvas = cv::Mat(size, CV_8UC3, cv::Scalar::all(114));
    resized.copyTo(result.canvas(cv::Rect(result.left, result.top, width, height)));
    return result;
}

// The network's input (3, H, W), RGB, 0..1
inline std::vector<float> planes(const cv::Mat &bgr) {
    std::vector<float> values;
    for (int channel : {2, 1, 0})
        for (int y = 0; y < bgr.rows; y++)
            for (int x = 0; x < bgr.cols; x++)
                values.push_back(bgr.at<cv::Vec3b>(y, x)[channel] / 255.0f);
    return values;
}

inline float iou(const cv::Vec4f &a, const cv::Vec4f &b) {
    const float width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
    const float height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
    if (width <= 0 || height <= 0) return 0;
    const float shared = width * height;
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

// The mean of the boxes around candidate `index`
inline cv::Vec4f vote(const std::vector<Detection> &candidates, size_t index, const Model &model) {
    const Detection &own = candidates[index];
    cv::Vec4d sum = cv::Vec4d(own.box) * own.score;
    double total = own.score;
    for (size_t i = 0; i < std::min(candidates.size(), size_t(model.voters)); i++) {
        const float overlap = iou(own.box, candidates[i].box);
        if (i == index || candidates[i].label != own.label || !(overlap > model.vote_iou)) continue;
        const double weight = double(candidates[i].score) * overlap * overlap;
        sum += cv::Vec4d(candidates[i].box) * weight;
        total += weight;
    }
    return sum * (1 / total);
}

// NMS within each class and box voting, for boxes (count, 4) and scores (count, classes)
inline std::vector<Detection> select(const float *boxes, const float *scores, int count, const Model &model) {
    std::vector<Detection> candidates, detections;
    const int classes = int(model.names.size());
    for (int i = 0; i < count * classes; i++)
        if (scores[i] > model.score)
            candidates.push_back({scores[i], i % classes, cv::Vec4f(boxes + 4 * (i / classes))});
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Detection &a, const Detection &b) { return a.score > b.score; });
    std::vector<size_t> kept;
    for (size_t i = 0; i < candidates.size() && int(kept.size()) < model.max_detections; i++) {
        const bool dropped = std::any_of(kept.begin(), kept.end(), [&](size_t j) {
            return candidates[i].label == candidates[j].label &&
                   iou(candidates[i].box, candidates[j].box) > model.nms_iou;
        });
        if (!dropped) kept.push_back(i);
    }
    for (size_t i : kept)
        detections.push_back({candidates[i].score, candidates[i].label, vote(candidates, i, model)});
    return detections;
}

// In image pixels, clipped to the image; boxes that lie in the padding are dropped
inline std::vector<Detection> to_image(std::vector<Detection> detections, const Letterbox &mapping, cv::Size size) {
    std::vector<Detection> inside;
    for (Detection &one : detections) {
        for (int i = 0; i < 4; i += 2) {
            const float x = (one.box[i] - mapping.left) / mapping.x_factor;
            const float y = (one.box[i + 1] - mapping.top) / mapping.y_factor;
            one.box[i] = std::clamp(x, 0.0f, float(size.width));
            one.box[i + 1] = std::clamp(y, 0.0f, float(size.height));
        }
        if (one.box[2] > one.box[0] && one.box[3] > one.box[1]) inside.push_back(one);
    }
    return inside;
}

// Prints the detections and writes the image with boxes
inline void report(const std::string &path, cv::Mat image, const std::vector<Detection> &detections,
                   const Model &model, const std::string &out) {
    std::printf("%s: %zu objects\n", path.c_str(), detections.size());
    for (const Detection &one : detections) {
        const cv::Vec4f &box = one.box;
        const std::string &name = model.names[one.label];
        std::printf("%.4f %.2f %.2f %.2f %.2f %s\n", one.score, box[0], box[1], box[2], box[3], name.c_str());
        cv::rectangle(image, cv::Point2f(box[0], box[1]), cv::Point2f(box[2], box[3]), {0, 200, 0}, 2);
        cv::putText(image, name, cv::Point2f(box[0], box[1]), cv::FONT_HERSHEY_PLAIN, 1, {0, 0, 200});
    }
    if (!out.empty() && !cv::imwrite(out + "/" + path.substr(path.find_last_of("/\\") + 1), image))
        throw std::runtime_error(out + ": cannot write there");
}

inline cv::Mat read_image(const std::string &path) {
    cv::Mat image = cv::imread(path);  // BGR, upright
    if (image.empty()) throw std::runtime_error(path + ": not an image that OpenCV reads");
    return image;
}
