// SPDX-License-Identifier: Apache-2.0
//
// producer.c once more, in the C++11 of a recognizer: the same commands and answers, see there.
#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef SOPHON_RING_HEADER
#include SOPHON_RING_HEADER
#else
#include "../../include/sophon_ring.h"
#endif

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <thread>

namespace {

using Picture = std::vector<char>;

// A negative errno on its way to the answer.
struct Error : std::runtime_error {
    explicit Error(int result) : std::runtime_error("ring"), number(result) {}
    int number;
};

void check(int result)
{
    if (result != 0)
        throw Error(result);
}

// How an integrator would hold a ring.
class Ring {
public:
    Ring(const std::string &path, std::uint64_t capacity)
    {
        sophon_ring *opened = nullptr;
        check(sophon_ring_open(&opened, path.c_str(), capacity));
        ring_.reset(opened);
    }
    void publish(const sophon_event &event) { check(sophon_ring_publish(get(), &event)); }
#if SOPHON_RING_ABI_VERSION >= 2
    void publish(const sophon_event2 &event) { check(sophon_ring_publish2(get(), &event)); }
#endif
    sophon_ring *get() const { return ring_.get(); }
    std::uint64_t sequence() const { return ring_->sequence; }

private:
    struct Close {
        void operator()(sophon_ring *ring) const { sophon_ring_close(ring); }
    };
    std::unique_ptr<sophon_ring, Close> ring_;
};

std::string decoded(const std::string &text)
{
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); i++) {
        if (text[i] == '%' && i + 2 < text.size()) {
            bytes += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
            i += 2;
        } else {
            bytes += text[i];
        }
    }
    return bytes;
}

Picture file(const std::string &path)
{
    std::ifstream stream(path, std::ios::binary);
    if (!stream)
        throw Error(-ENOENT);
    return Picture(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

// The key=value words of a line, and the event that they describe. The event points into it.
class Fields {
public:
    explicit Fields(std::istream &line)
    {
        static const char *const known[] = {
            "identity_id", "identity_name", "name", "group_name", "group_id", "device_ip", "ext_json", "timestamp_ms", "score",
            "person_type", "device_type", "reg_file", "spot_file", "top_json", "reg_max", "spot_max", "reg_len", "spot_len"};
        std::string word;
        while (line >> word) {
            const std::size_t equals = word.find('=');
            const std::string key = word.substr(0, equals);
            if (key == "pic" && equals != std::string::npos) {
                named.push_back(named_picture(decoded(word.substr(equals + 1))));
                continue;
            }
            if (equals == std::string::npos || std::find(std::begin(known), std::end(known), key) == std::end(known))
                throw Error(-EINVAL);
            values_[key] = decoded(word.substr(equals + 1));
        }
        if (has("reg_file"))
            reg_pic = file(values_["reg_file"]);
        if (has("spot_file"))
            spot_pic = file(values_["spot_file"]);
    }
    Fields(const Fields &) = delete;
    Fields &operator=(const Fields &) = delete;

    bool has(const std::string &key) const { return values_.count(key) > 0; }
    const char *text(const std::string &key) const { return has(key) ? values_.at(key).c_str() : nullptr; }
    long long number(const std::string &key, long long otherwise) const
    {
        return has(key) ? std::strtoll(values_.at(key).c_str(), nullptr, 10) : otherwise;
    }
    std::size_t size(const std::string &key, std::size_t otherwise) const
    {
        return has(key) ? static_cast<std::size_t>(std::strtoull(values_.at(key).c_str(), nullptr, 10)) : otherwise;
    }
    sophon_event event() const
    {
        sophon_event event = sophon_event();
        event.identity_id = text("identity_id");
        event.identity_name = has("name") ? text("name") : text("identity_name");
        event.group_name = text("group_name");
        event.group_id = text("group_id");
        event.device_ip = text("device_ip");
        event.ext_json = text("ext_json");
        event.timestamp_ms = number("timestamp_ms", 0);
        event.score = has("score") ? std::strtof(values_.at("score").c_str(), nullptr) : 0.0f;
        event.person_type = static_cast<std::int32_t>(number("person_type", 0));
        event.device_type = static_cast<std::int32_t>(number("device_type", -1));
        event.reg_pic = reg_pic.data();
        event.reg_pic_len = reg_pic.size();
        event.spot_pic = spot_pic.data();
        event.spot_pic_len = spot_pic.size();
        return event;
    }

    // Whether only ABI 2 can take the event.
    bool is_of_2() const { return has("top_json") || !named.empty(); }

    struct Named {
        std::int32_t place;
        std::string name;
        bool is_length;         // of a reservation or a commit: the number in place of the picture
        std::size_t length;
        Picture picture;
    };

    Picture reg_pic;
    Picture spot_pic;
    std::vector<Named> named;

private:
    // PLACE:NAME:PATH, or a number in place of the path.
    static Named named_picture(const std::string &text)
    {
        const std::size_t name = text.find(':');
        const std::size_t content = name == std::string::npos ? name : text.find(':', name + 1);
        if (content == std::string::npos)
            throw Error(-EINVAL);
        Named named;
        named.place = static_cast<std::int32_t>(std::stoi(text.substr(0, name)));
        named.name = text.substr(name + 1, content - name - 1);
        const std::string rest = text.substr(content + 1);
        named.is_length = !rest.empty() && rest.find_first_not_of("0123456789") == std::string::npos;
        if (!named.is_length)
            named.picture = file(rest);
        named.length = named.is_length ? static_cast<std::size_t>(std::stoull(rest)) : named.picture.size();
        return named;
    }

    std::map<std::string, std::string> values_;
};

#if SOPHON_RING_ABI_VERSION >= 2
// An event of ABI 2, which points into its fields.
struct Event2 {
    explicit Event2(const Fields &fields)
    {
        for (const Fields::Named &named : fields.named) {
            sophon_picture picture = sophon_picture();
            picture.name = named.name.c_str();
            picture.place = named.place;
            picture.data = named.picture.data();
            picture.len = named.length;
            pictures.push_back(picture);
        }
        sophon_event2_init(&event);
        event.event = fields.event();
        event.top_json = fields.text("top_json");
        event.pictures = pictures.data();
        event.pictures_count = pictures.size();
    }
    std::vector<sophon_picture> pictures;
    sophon_event2 event;
};
#endif

Picture drawn(std::size_t size, std::uint64_t seed)
{
    Picture picture(size);
    for (std::size_t j = 0; j < size; j++)
        picture[j] = static_cast<char>(seed + 7 * j + j / 256);
    return picture;
}

const char *name_of(int error)
{
    static const std::map<int, const char *> names = {
        {EINVAL, "EINVAL"}, {EMSGSIZE, "EMSGSIZE"}, {ENOSPC, "ENOSPC"}, {EBUSY, "EBUSY"},
        {ENOENT, "ENOENT"}, {EACCES, "EACCES"}, {EISDIR, "EISDIR"}, {ENOMEM, "ENOMEM"},
        {EPROTONOSUPPORT, "EPROTONOSUPPORT"}};
    const auto found = names.find(error);
    return found == names.end() ? "OTHER" : found->second;
}

class Producer {
public:
    // The answer to one line, without its "ok".
    std::string obey(const std::string &text)
    {
        std::istringstream line(text);
        std::ostringstream answer;
        std::string command;
        line >> command;
        if (command == "open") {
            std::string path;
            std::uint64_t capacity = 0;
            if (ring_ || !(line >> path >> capacity))
                throw Error(-EINVAL);
            ring_.reset(new Ring(decoded(path), capacity));
        } else if (command == "close") {
            ring_.reset();
            room_ = Room();
        } else if (command == "publish") {
            const Fields fields(line);
            publish(fields);
            answer << ' ' << ring().sequence();
        } else if (command == "reserve") {
            reserve(Fields(line));
        } else if (command == "write") {
            const Fields fields(line);
            write(fields.reg_pic, room_.reg_pic, room_.reg_max, room_.reg_len);
            write(fields.spot_pic, room_.spot_pic, room_.spot_max, room_.spot_len);
            for (std::size_t i = 0; i < std::min(fields.named.size(), room_.named.size()); i++)
                write(fields.named[i].picture, room_.named[i], room_.max[i], room_.len[i]);
            answer << ' ' << room_.reg_len << ' ' << room_.spot_len;
        } else if (command == "write_half") {
            if (room_.reg_pic == nullptr && room_.spot_pic == nullptr)
                throw Error(-EINVAL);
            std::fill_n(static_cast<unsigned char *>(room_.reg_pic), room_.reg_max / 2, static_cast<unsigned char>(0xAA));
            std::fill_n(static_cast<unsigned char *>(room_.spot_pic), room_.spot_max / 2, static_cast<unsigned char>(0xAA));
        } else if (command == "commit") {
            const Fields fields(line);
            commit(fields);
            room_ = Room();
            answer << ' ' << ring().sequence();
        } else if (command == "abort") {
            sophon_ring_abort(ring_ ? ring_->get() : nullptr);
            room_ = Room();
        } else if (command == "many") {
            many(line, answer);
        } else if (command == "dropped") {
            answer << ' ' << sophon_ring_dropped(ring_ ? ring_->get() : nullptr);
        } else if (command == "seq") {
            answer << ' ' << (ring_ ? ring_->sequence() : 0);
        } else if (command == "id") {
            static const char digits[] = "0123456789abcdef";
            answer << ' ';
            for (const std::uint8_t byte : ring().get()->header->id)
                answer << digits[byte >> 4] << digits[byte & 15];
        } else if (command == "pid") {
            answer << ' ' << getpid();
        } else if (command == "hang") {
            std::cout << "ok" << std::endl;
            for (;;)
                pause();
        } else {
            throw Error(-EINVAL);
        }
        return answer.str();
    }

private:
    struct Room {
        void *reg_pic = nullptr;
        void *spot_pic = nullptr;
        std::size_t reg_max = 0, spot_max = 0, reg_len = 0, spot_len = 0;
        std::vector<void *> named;
        std::vector<std::size_t> max, len;
    };

    Ring &ring()
    {
        if (!ring_)
            throw Error(-EINVAL);
        return *ring_;
    }

#if SOPHON_RING_ABI_VERSION >= 2
    void publish(const Fields &fields)
    {
        if (fields.is_of_2())
            ring().publish(Event2(fields).event);
        else
            ring().publish(fields.event());
    }

    void commit(const Fields &fields)
    {
        std::vector<std::size_t> lengths = room_.len;
        for (std::size_t i = 0; i < std::min(lengths.size(), fields.named.size()); i++)
            lengths[i] = fields.named[i].length;
        check(sophon_ring_commit2(ring().get(), fields.size("reg_len", room_.reg_len),
                                  fields.size("spot_len", room_.spot_len), lengths.data()));
    }

    void reserve_2(const Fields &fields, Room &room)
    {
        Event2 event(fields);
        event.event.event.reg_pic_len = room.reg_max;
        event.event.event.spot_pic_len = room.spot_max;
        room.named.resize(event.pictures.size());
        room.len.resize(event.pictures.size());
        for (const sophon_picture &picture : event.pictures)
            room.max.push_back(picture.len);
        check(sophon_ring_reserve2(ring().get(), &event.event, &room.reg_pic, &room.spot_pic, room.named.data()));
    }
#else
    void publish(const Fields &fields) { ring().publish(fields.event()); }

    void commit(const Fields &fields)
    {
        check(sophon_ring_commit(ring().get(), fields.size("reg_len", room_.reg_len),
                                 fields.size("spot_len", room_.spot_len)));
    }

    void reserve_2(const Fields &, Room &) { throw Error(-EINVAL); }
#endif

    void reserve(const Fields &fields)
    {
        const sophon_event event = fields.event();
        Room room;
        room.reg_max = fields.size("reg_max", 0);
        room.spot_max = fields.size("spot_max", 0);
        if (fields.is_of_2())
            reserve_2(fields, room);
        else
            check(sophon_ring_reserve(ring().get(), &event, room.reg_max, room.spot_max, &room.reg_pic, &room.spot_pic));
        room_ = room;
    }

    static void write(const Picture &picture, void *room, std::size_t room_max, std::size_t &written)
    {
        if (picture.size() > (room == nullptr ? 0 : room_max))
            throw Error(-EINVAL);
        if (!picture.empty()) {
            std::copy(picture.begin(), picture.end(), static_cast<char *>(room));
            written = picture.size();
        }
    }

    void many(std::istream &line, std::ostream &answer)
    {
        std::uint64_t count = 0, published = 0;
        std::size_t size = 0;
        std::string word;
        if (!(line >> count >> size) || (line >> word && word != "noretry"))
            throw Error(-EINVAL);
        for (std::uint64_t n = 1; n <= count; n++) {
            const std::string name = std::to_string(n);
            const std::string id = "many-" + name;
            const Picture reg_pic = drawn(size, 131 * n);
            const Picture spot_pic = drawn(size, 131 * n + 1);
            sophon_event event = sophon_event();
            event.identity_id = id.c_str();
            event.identity_name = name.c_str();
            event.group_name = "many";
            event.timestamp_ms = static_cast<std::int64_t>(n);
            event.score = 0.5f;
            event.device_type = -1;
            event.reg_pic = reg_pic.data();
            event.spot_pic = spot_pic.data();
            event.reg_pic_len = event.spot_pic_len = size;
            int error = sophon_ring_publish(ring().get(), &event);
            while (error == -ENOSPC && word.empty()) {
                std::this_thread::sleep_for(std::chrono::microseconds(200));
                error = sophon_ring_publish(ring().get(), &event);
            }
            if (error == 0)
                published++;
            else if (error != -ENOSPC)
                throw Error(error);
        }
        answer << ' ' << ring().sequence() << ' ' << published << ' ' << count - published;
    }

    std::unique_ptr<Ring> ring_;
    Room room_;
};

}  // namespace

int main()
{
    Producer producer;
    std::string line;
    while (std::getline(std::cin, line)) {
        try {
            const std::string answer = producer.obey(line);
            std::cout << "ok" << answer << std::endl;
        } catch (const Error &error) {
            std::cout << "error " << error.number << ' ' << name_of(-error.number) << std::endl;
        }
    }
    return 0;
}
